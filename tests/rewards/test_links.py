"""What each link of a thought earns: hand-worked thoughts on one image of two birds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import ConfigError
from mllm.metrics import reasoning
from mllm.models import families
from mllm.models.families import Family
from mllm.prompting import answers
from mllm.records import Completion, Sample, Score, Thing
from mllm.rewards.links import Reward

POCKET, SIZE = families.load("pocket"), Frame(200, 200)
LEFT, RIGHT = Box(0.1, 0.1, 0.4, 0.5), Box(0.6, 0.5, 0.9, 0.9)
THINGS = (Thing("Tala rovi", LEFT, ("round", "red")), Thing("Tala runo", RIGHT, ("round", "blue")))
SAMPLE = Sample(
    "a", "ground", "a.png", SIZE, "bird", "Tala rovi", "Find it.", (LEFT,), THINGS,
    thought="Tala rovi: round, red. 1 <obj:0>: round fits, red fits, fits. 2 <obj:1>: round fits, blue not, not. "
    "So 1 <obj:0>.",
)  # fmt: skip
HEAD = "Tala rovi: round, red."
FIRST, SECOND = "1 (10,10),(40,50): round fits, red fits, fits.", "2 (60,50),(90,90): round fits, blue not, not."
UNLIKE = "1 (10,10),(40,50): round fits, red not, not."
END = "So 1 (10,10),(40,50)."
BOX = "(10,10),(40,50)"


def scored(thought: str, box: str = BOX, sample: Sample = SAMPLE, family: Family = POCKET, **config: object) -> Score:
    reward = Reward(**config).reading(family, family.budget)  # pyright: ignore[reportArgumentType]
    text = f"<think>{thought}</think><answer>{box}</answer>"
    frame = family.frame(sample.size, family.budget)
    return reward([sample], [Completion("a", text, answers.parse(text, family, frame))])[0]


@pytest.mark.parametrize(
    ("thought", "box", "parts"),
    [
        (f"{HEAD} {FIRST} {SECOND} {END}", BOX, {}),
        # one mark recalled wrong; the verdicts agree with the recall all the same
        (f"Tala rovi: round, red cap. {UNLIKE} {SECOND} {END}", BOX, {"recall": 0}),
        # one of four verdicts against the recall
        (f"{HEAD} {FIRST} {SECOND.replace('blue not', 'blue fits')} {END}", BOX, {"mark judged": 3 / 4}),
        # one of four marks not as it is, and judged as it is said to be
        (f"{HEAD} {FIRST} {SECOND.replace('blue not, not', 'red fits, fits')} {END}", BOX, {"mark seen": 3 / 4}),
        # the second thing left out: half the things found, their marks right
        (f"{HEAD} {FIRST} {END}", BOX, {"found": 1 / 2}),
        # the other thing chosen, and its box copied
        (f"{HEAD} {FIRST} {SECOND} So 2 (60,50),(90,90).", "(60,50),(90,90)", {"chosen": 0}),
        # chosen right, copied wrong
        (f"{HEAD} {FIRST} {SECOND} {END}", "(10,10),(40,51)", {"copied": 0}),
        # no verdicts where the sample's own thought has them
        (f"{HEAD} 1 (10,10),(40,50): round, red. 2 (60,50),(90,90): round, blue. {END}", BOX, {"mark judged": 0}),
        # nothing but an answer
        ("", BOX, dict.fromkeys(("recall", "found", "mark seen", "mark judged", "chosen", "copied"), 0)),
    ],
)  # fmt: skip
def test_every_link_is_paid_for_itself(thought: str, box: str, parts: dict[str, float]) -> None:
    expected = dict.fromkeys(("recall", "found", "mark seen", "mark judged", "chosen", "copied"), 1.0) | parts
    found = scored(thought, box)
    assert found.parts == expected
    assert found.value == pytest.approx(sum(expected.values()) / 6)


def test_it_pays_what_the_benchmark_prints() -> None:
    """The shares are those of `mllm.metrics.reasoning`, for every link that there is."""
    thought = f"{HEAD} {FIRST} {SECOND.replace('blue not', 'blue fits')} So 2 (60,50),(90,90)."
    found = scored(thought, of=tuple(reasoning.STEPS))
    answer = answers.parse(f"<think>{thought}</think><answer>{BOX}</answer>", POCKET, Frame(100, 100))
    counts = reasoning.judge_steps(SAMPLE, answer, POCKET, Frame(100, 100))
    assert counts is not None
    assert {name: share for name, share in found.parts.items() if name in counts} == {
        name: right / of for name, (right, of) in counts.items()
    }


def test_a_link_that_the_samples_own_thought_does_without_does_not_count() -> None:
    plain = replace(SAMPLE, thought="Tala rovi: round, red. 1 <obj:0>: round, red. 2 <obj:1>: round, blue. So 1.")
    output = f"{HEAD} 1 (10,10),(40,50): round, red. 2 (60,50),(90,90): round, blue. So 1."
    found = scored(output, sample=plain)
    assert found.value == 1 and "mark judged" not in found.parts
    unthought = scored(output, sample=replace(SAMPLE, thought=None))
    assert unthought.value == pytest.approx(5 / 6), "where nobody thought yet, all of them count"


def test_boxes_are_read_on_the_paper_of_the_checkpoint() -> None:
    qwen = families.load("qwen3_vl")
    thought = (
        f"{HEAD} 1 (100,100),(400,500): round fits, red fits, fits. 2 (600,500),(900,900): round fits, blue not, not."
    )
    assert scored(f"{thought} So 1.", "(100,100),(400,500)", family=qwen).value == 1
    assert scored(f"{thought} So 1.", "(100,100),(400,500)").parts["found"] == 0


def test_nothing_for_what_it_cannot_judge() -> None:
    unmarked = replace(SAMPLE, things=(THINGS[0], Thing("Tala runo", RIGHT)))
    assert scored(HEAD, sample=unmarked).value is None
    every = replace(SAMPLE, task="ground_all")
    assert scored(HEAD, sample=every).value is None


def test_refused() -> None:
    with pytest.raises(ConfigError, match="unknown step 'judge'; known: form, name, recall"):
        Reward(of=("judge",))
    with pytest.raises(ConfigError, match="name at least one step"):
        Reward(of=())
    with pytest.raises(ConfigError, match="set its family"):
        Reward()([SAMPLE], [Completion("a", "", answers.parse("", POCKET, Frame(100, 100)))])
