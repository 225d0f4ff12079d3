"""The format reward: what counts as the asked form, and what does not."""

from __future__ import annotations

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import ConfigError
from mllm.models import families
from mllm.prompting import answers
from mllm.records import Completion, Sample
from mllm.rewards.format import Reward

FAMILY = families.load("pocket")
SAMPLE = Sample("a", "ground", "a.png", Frame(96, 96), "bird", "x", "Find x.", (Box(0, 0, 0.5, 0.5),))
BOX = "(10,20),(30,40)"


def score(text: str, style: str = "think") -> float | None:
    completion = Completion("a", text, answers.parse(text, FAMILY, Frame(100, 100)))
    return Reward(style=style)([SAMPLE], [completion])[0].value  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<think>so</think><answer>{BOX}</answer>", 1.0),
        (f"\n<think>so</think>\n <answer>{BOX}</answer>\n", 1.0),
        (f"<answer>{BOX}</answer>", 0.5),  # a box, but no thought
        (f"<think> </think><answer>{BOX}</answer>", 0.5),  # an empty thought is none
        (f"<think>so</think>hm<answer>{BOX}</answer>", 0.5),  # words between
        (f"<think>so</think><answer>{BOX}</answer> bye", 0.5),  # words after
        (f"<answer>{BOX}</answer><think>so</think>", 0.5),  # the wrong order
        (f"<think>a</think><think>b</think><answer>{BOX}</answer>", 0.5),  # twice
        ("<think>so</think><answer>there</answer>", 0.5),  # tags, but no box
        (f"<think>so</think><answer>{BOX} {BOX}</answer>", 0.5),  # guessing twice
        ("<think>so</think><answer>(30,40),(10,20)</answer>", 0.5),  # inverted
        (BOX, 0.0),
        ("", 0.0),
    ],
)
def test_think(text: str, expected: float) -> None:
    assert score(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<answer>{BOX}</answer>", 1.0),
        (f"<think>so</think><answer>{BOX}</answer>", 0.5),
        (f"the box: <answer>{BOX}</answer>", 0.5),
        ("<answer></answer>", 0.5),
    ],
)
def test_direct(text: str, expected: float) -> None:
    assert score(text, "direct") == expected


def test_unknown_style() -> None:
    with pytest.raises(ConfigError, match="think, direct"):
        Reward(style="loud")  # pyright: ignore[reportArgumentType]
