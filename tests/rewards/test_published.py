"""Published rewards on cases worked by hand, each test naming whom it follows, and where peers part.

The true box is the left half of the image, `(0,0),(500,1000)` on thousandths. A box `(0,0),(w,1000)` inside it has
IoU w / 500, so every IoU below can be read off the text.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mllm import rewards
from mllm.boxes import Box, Frame
from mllm.evaluation import kvg_published
from mllm.models import families
from mllm.prompting import answers
from mllm.records import Completion, Sample, Score

QWEN3 = families.load("qwen3_vl")
FRAME = Frame(1000, 1000)
GOLD = Box(0, 0, 0.5, 1)
SAMPLE = Sample("a", "ground", "a.png", Frame(640, 480), "aircraft", "Boeing 747-400", "Find it.", (GOLD,))


def read(text: str) -> Completion:
    return Completion("a", text, answers.parse(text, QWEN3, FRAME))


def box(width: int) -> str:
    return f"<think>so</think><answer>(0,0),({width},1000)</answer>"


def score(name: str, text: str, **config: object) -> Score:
    return rewards.load(name, **config)([SAMPLE], [read(text)])[0]


@pytest.mark.parametrize(("width", "expected"), [(500, 1.0), (450, 0.9), (400, 0.0), (401, 0.802), (250, 0.0)])
def test_deepperception_pays_iou_strictly_above_its_threshold(width: int, expected: float) -> None:
    """`iou if iou > 0.8 else 0` in its released code: 0.8 itself earns nothing."""
    assert score("iou", box(width), mode="threshold", tau=0.8).value == pytest.approx(expected)


@pytest.mark.parametrize("width", [50, 250, 251, 500])
def test_vlm_r1_pays_iou_as_it_is(width: int) -> None:
    assert score("iou", box(width)).value == pytest.approx(width / 500)


def test_vlm_r1_first_counted_above_half_and_the_benchmarks_count_the_tie() -> None:
    """[IoU > 0.5] against KVG-Bench's and EGM's [IoU >= 0.5]: they part at 250 of 500, and only there."""
    above_half = {w: float(w / 500 > 0.5) for w in (249, 250, 251)}
    ours = {w: score("iou", box(w), mode="hit").value for w in above_half}
    assert (above_half, ours) == ({249: 0, 250: 0, 251: 1}, {249: 0, 250: 1, 251: 1})


@pytest.mark.parametrize(("width", "expected"), [(500, 1.0), (250, 0.25), (100, 0.04)])
def test_perception_r1_squares(width: int, expected: float) -> None:
    assert score("iou", box(width), mode="power").value == pytest.approx(expected)


@pytest.mark.parametrize(("width", "expected"), [(500, 1.0), (400, 0.9), (250, 0.75), (200, 0.2), (0, 0.0)])
def test_egm_gives_half_for_passing_and_half_for_iou(width: int, expected: float) -> None:
    assert score("iou", box(width), mode="half").value == pytest.approx(expected)


KARL = [
    # level, IoU 1, IoU 0.8, IoU 0.65 (not above tau), IoU 0.2
    ("completely correct", 0.65, 0.52, -0.6, -0.6),
    ("mostly correct", 0.85, 0.68, -0.5, -0.5),
    ("partially correct", 1.0, 0.8, -0.4, -0.4),
    ("mostly incorrect", 1.0, 0.96, -0.2, -0.2),  # 1.2 * 1 is capped at 1
    ("completely incorrect", 1.0, 1.0, 0.0, 0.0),  # 1.4 * 0.8 = 1.12 is capped too
]


@pytest.mark.parametrize(("level", "full", "most", "tie", "little"), KARL)
def test_karl(level: str, full: float, most: float, tie: float, little: float) -> None:
    """Its table, with > in the code where the paper has >=."""
    found = [score("mastery", box(width), unknown=level).value for width in (500, 400, 325, 100)]
    assert found == pytest.approx([full, most, tie, little])


def test_karl_gives_nothing_rather_than_a_penalty_without_an_answer() -> None:
    for text in ("It is at (0,0),(500,1000).", "<think>so</think>", "<answer>(0,0),(500,1000)"):
        assert score("mastery", text, unknown="completely correct").value == 0.0
    assert score("mastery", "<answer>left</answer>", unknown="completely correct").value == -0.6


def test_deepperception_and_karl_let_words_follow_the_answer_and_ours_does_not() -> None:
    """Their tag pattern is matched at the beginning only; half of the format reward is theirs and not ours here."""
    import re

    theirs = re.compile(r"<think>[\S\n\t\v ]*?</think>\s*<answer>[\S\n\t\v ]*?</answer>")
    text = box(500) + " Done."
    assert theirs.match(text) and score("format", text).value == 0.5
    assert theirs.match(box(500)) and score("format", box(500)).value == 1.0


# How KVG-Bench's own scorer reads, and how we do: (text, its numbers, our box's numbers or our problem).
READINGS = {
    "an integer pair": ("<answer>(10,20),(300,400)</answer>", (10, 20, 300, 400), (10, 20, 300, 400)),
    "floats": ("<answer>(77.0,348.0),(289.0,630.0)</answer>", (77, 348, 289, 630), (77, 348, 289, 630)),
    "spaced list": ("<answer>[10, 20, 300, 400]</answer>", (10, 20, 300, 400), (10, 20, 300, 400)),
    "list without spaces": ("<answer>[10,20,300,400]</answer>", (0, 0, 0, 0), (10, 20, 300, 400)),
    "bracket without spaces": ("<answer>(10,20,300,400)</answer>", (0, 0, 0, 0), (10, 20, 300, 400)),
    "no tag": ("It is (10,20),(300,400)", (10, 20, 300, 400), answers.NO_ANSWER),
    "two boxes": ("<answer>(1,2),(3,4) (10,20),(300,400)</answer>", (10, 20, 300, 400), (10, 20, 300, 400)),
    "shares": ("<answer>(0.1,0.2),(0.3,0.4)</answer>", (100, 200, 300, 400), answers.SHARES),
}


@pytest.mark.parametrize(("text", "theirs", "ours"), READINGS.values(), ids=READINGS)
def test_kvg_bench_reads_otherwise_in_places(text: str, theirs: tuple[float, ...], ours: object) -> None:
    assert kvg_published.published_numbers(text)[0] == pytest.approx(theirs)
    answer = read(text).answer
    assert (answer.numbers[-1] if answer.problem is None else answer.problem) == ours


def test_answers_of_the_asked_form_earn_what_the_released_rewards_give() -> None:
    """KARL's and DeepPerception's own functions on 160 answers; DeepPerception's format half for the box never pays."""
    rows = json.loads((Path(__file__).parents[1] / "support/grounding_rewards.json").read_text(encoding="utf-8"))
    for text, gold, level, *theirs in rows:
        case, answer = replace(SAMPLE, boxes=(Box.from_xyxy(gold, FRAME),)), read(text)
        names = {"mastery": {"unknown": level}, "format": {}, "iou": {"mode": "threshold", "tau": 0.8}}
        ours = [rewards.load(name, **config)([case], [answer])[0] for name, config in names.items()]
        found = [*(one.value for one in ours), ours[1].parts["tags"] / 2]
        assert found == pytest.approx(theirs, abs=1e-6), text
    assert len(rows) == 160 and len({level for _, _, level, *_ in rows}) == 5


def test_kvg_bench_counts_the_tie() -> None:
    assert (
        kvg_published.published_ious(box(250), GOLD)["published"] == 0.5 and score("iou", box(250)).parts["acc"] == 1.0
    )
