"""Captions of one scene put together: nothing lost, nothing moved to another thing, the earlier one wins."""

from __future__ import annotations

import random

import pytest

from mllm.pocket.captions import judge, merge, rich, sparse
from mllm.pocket.look_alikes import look_alikes
from mllm.synthesis import teachers
from mllm.synthesis.capabilities import Look


@pytest.mark.parametrize(
    ("captions", "merged"),
    [
        (["A red bird and a blue bird.", "A round bird and a bird with white cap."],
         "A round red bird. A blue bird with white cap."),
        # In order both are possible, so order decides and not the agreement of two `round`s.
        (["A round bird and a striped bird.", "A red bird and a round bird."],
         "A round red bird. A round striped bird."),
        # In order they cannot be the same things; matched the other way round they can.
        (["A red bird and a blue bird.", "A round blue bird and a tall red bird."],
         "A tall red bird. A round blue bird."),
        (["A red bird and a blue bird.", "A green bird and a blue bird."], "A red bird. A blue bird."),
        (["A red bird.", "A round red bird. A blue bird."], "A round red bird. A blue bird."),
    ],
)  # fmt: skip
def test_merging(captions: list[str], merged: str) -> None:
    assert merge(captions) == merged


def test_the_oracle_blends_and_expands_scenes_truly() -> None:
    """Of what people said nothing is lost, nothing is wrong; with the description nothing is missing."""
    oracle = teachers.load("pocket")
    for seed in range(12):
        for scene in look_alikes(seed, 2, "hard"):
            marks = scene.marks
            info = [sparse(scene.domain, marks, random.Random(f"{seed}/{k}")) for k in range(5)]
            blended = oracle.blend(info)
            found = judge(blended, marks)
            assert found.precision == 1.0
            assert found.right >= max(judge(one, marks).right for one in info)
            look = Look("a.png", scene.domain, None, tuple(mark for thing in marks for mark in thing))
            whole = oracle.expand(blended, oracle.describe(look))
            assert judge(whole, marks).recall == judge(whole, marks).precision == 1.0
            if len(marks) > 1:
                assert oracle.describe(look) == rich(scene.domain, marks)


def test_the_oracle_judges_phrases() -> None:
    look = Look("a.png", "bird", None, ("round", "red", "plain", "blue cap", "tall", "white", "spotted", "red cap"))
    asked = ("round", "A round red bird", "A round white bird", "A tall car", "blue cap", "green cap", "on grass")
    assert teachers.load("pocket").sees(look, asked) == (True, True, False, False, True, False, None)
