"""What counts as recalling a card, and what as contradicting it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.prompting import answers
from mllm.records import Completion, Sample, Thing
from mllm.rewards.recall import Reward

FAMILY, FRAME = families.load("pocket"), Frame(100, 100)
CARD = ("round", "red", "blue cap", "white wing panel")
THINGS = (Thing("redstart", Box(0, 0, 0.5, 1), CARD), Thing("robin", Box(0.5, 0, 1, 1), ("round", "brown", "red cap")))
SAMPLE = Sample("a", "ground", "a.png", Frame(96, 96), "bird", "redstart", "Find it.", (THINGS[0].box,), THINGS)


def score(thought: str, reward: Reward | None = None, sample: Sample = SAMPLE) -> float | None:
    text = f"<think>{thought}</think><answer>(0,0),(50,100)</answer>"
    return (reward or Reward())([sample], [Completion("a", text, answers.parse(text, FAMILY, FRAME))])[0].value


@pytest.mark.parametrize(
    ("thought", "expected"),
    [
        ("redstart: round, red, blue cap, white wing panel. 1 (0,0),(50,100): round.", 1.0),
        ("The redstart is round and red, has a Blue cap and a white wing-panel.", 1.0),
        ("redstart: round, red. 1 (0,0),(50,100): blue cap, white wing panel.", 0.5),  # stated of a candidate
        ("redstart: round, red, red cap, white wing panel.", 0.5),  # 3 recalled, 1 contradicted
        ("redstart: round, red, no blue cap.", 0.25),  # 2 recalled, 1 denied
        ("redstart: red cap, brown wing panel.", 0.0),  # 1 recalled ("red"), 2 contradicted: never below 0
        ("redstart: redder, rounded, blue caps.", 0.0),  # other words
        ("I look at each.", 0.0),
        ("", 0.0),
    ],
)
def test_recalled_less_contradicted(thought: str, expected: float) -> None:
    assert score(thought) == pytest.approx(expected)


def test_cards_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text("Redstart: [orange tail, sooty breast]\n")
    reward = Reward(cards=str(file))
    assert score("It has an orange tail.", reward) == 0.5
    other = Sample("a", "ground", "a.png", Frame(96, 96), "bird", "robin", "Find it.", (THINGS[1].box,), THINGS)
    assert score("It has an orange tail.", reward, other) is None  # no card, no score
    with pytest.raises(FieldmarkError, match="gone.yaml"):
        Reward(cards=str(tmp_path / "gone.yaml"))


def test_without_marks_it_does_not_apply() -> None:
    bare = Sample("a", "ground", "a.png", Frame(96, 96), "bird", "wren", "Find it.", (THINGS[1].box,), THINGS)
    assert score("wren: round", None, bare) is None
