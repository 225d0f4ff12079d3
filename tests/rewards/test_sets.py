"""Rewards of samples with several boxes or none: matched, presence, and what the others do there."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm import rewards
from mllm.boxes import Box, Frame, iou
from mllm.evaluation import scores
from mllm.models import families
from mllm.prompting import answers
from mllm.prompting.tasks import score_of
from mllm.prompting.tasks.ground_all import matched_iou
from mllm.records import Completion, Sample, Score
from tests.support.strategies import boxes

FAMILY = families.load("pocket")
FRAME = Frame(100, 100)
LEFT, RIGHT = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)
ALL = Sample("a", "ground_all", "a.png", Frame(96, 96), "bird", "x", "Find every x.", (LEFT, RIGHT))
ABSENT = replace(ALL, task="ground", boxes=())
ONE = replace(ALL, task="ground", boxes=(LEFT,))

WHOLE_LEFT, WHOLE_RIGHT, HALF_LEFT = "(0,0),(50,100)", "(50,0),(100,100)", "(0,0),(25,100)"


def read(text: str) -> Completion:
    output = f"<think>so</think><answer>{text}</answer>"
    return Completion("a", output, answers.parse(output, FAMILY, FRAME))


def value(name: str, sample: Sample, text: str) -> float | None:
    return rewards.load(name)([sample], [read(text)])[0].value


@pytest.mark.parametrize(
    ("text", "expected", "exact"),
    [
        (f"{WHOLE_LEFT}, {WHOLE_RIGHT}", 1.0, 1.0),
        (f"{WHOLE_RIGHT}, {WHOLE_LEFT}", 1.0, 1.0),  # the order does not matter
        (WHOLE_LEFT, 0.5, 0.0),  # one of two
        (f"{HALF_LEFT}, {WHOLE_RIGHT}", 0.75, 1.0),  # (0.5 + 1) / 2
        (f"{WHOLE_LEFT}, {WHOLE_RIGHT}, {HALF_LEFT}", 2 / 3, 0.0),  # one too many
        (f"{WHOLE_LEFT}, {WHOLE_LEFT}", 0.5, 0.0),  # the same one twice finds one
        (f"(90,0),(10,50), {WHOLE_LEFT}, {WHOLE_RIGHT}", 2 / 3, 0.0),  # what is no box counts as answered
        ("none", 0.0, 0.0),
        ("both", 0.0, 0.0),
    ],
)
def test_matched(text: str, expected: float, exact: float) -> None:
    (score,) = rewards.load("matched")([ALL], [read(text)])
    assert score.value == pytest.approx(expected) and score.parts["exact"] == exact
    assert score_of(ALL, read(text).answer) == score.value
    assert scores.Case(ALL, read(text), 0.0, None, None).hit == bool(exact)


@given(st.lists(boxes(0.05), min_size=1, max_size=4), st.lists(boxes(0.05), min_size=1, max_size=4))
def test_the_matching_is_the_best_of_all(answered: list[Box], true: list[Box]) -> None:
    short, long = sorted((answered, true), key=len)
    best = max(sum(map(iou, short, order)) for order in permutations(long, len(short)))
    sample = replace(ALL, boxes=tuple(true))
    answer = replace(read("none").answer, boxes=tuple(answered), numbers=((0.0,) * 4,) * len(answered), absent=False)
    assert matched_iou(answer, sample) == pytest.approx(best / len(long))


@pytest.mark.parametrize(
    ("sample", "text", "expected"),
    [
        (ABSENT, "none", 1.0),
        (ABSENT, "It is not in this image.", 1.0),
        (ABSENT, WHOLE_LEFT, 0.0),
        (ABSENT, "I cannot tell", 0.0),
        (ONE, WHOLE_RIGHT, 1.0),  # there, if not here
        (ONE, "none", 0.0),
        (ONE, "I cannot tell", 0.0),
        (ALL, f"{WHOLE_LEFT}, {WHOLE_RIGHT}", 1.0),
    ],
)
def test_presence(sample: Sample, text: str, expected: float) -> None:
    assert value("presence", sample, text) == expected
    if not sample.boxes:
        assert scores.Case(sample, read(text), score_of(sample, read(text).answer), None, None).hit == expected


def test_rewards_keep_to_their_own_kind() -> None:
    assert value("matched", ONE, WHOLE_LEFT) is None and value("matched", ABSENT, "none") is None
    assert rewards.load("iou")([ALL, ABSENT], [read(WHOLE_LEFT), read("none")]) == [Score(None), Score(None)]


def test_the_form_of_sets_and_of_none() -> None:
    assert value("format", ALL, f"{WHOLE_LEFT}, {WHOLE_RIGHT}") == 1.0
    assert value("format", ALL, f"(90,0),(10,50), {WHOLE_RIGHT}") == 0.5
    assert value("format", ONE, f"{WHOLE_LEFT}, {WHOLE_RIGHT}") == 0.5  # many guesses in a row
    assert value("format", ABSENT, "none") == value("format", ONE, "none") == 1.0  # the form alone
