"""Captions put together by rules: nothing lost, nothing added, whatever people write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.errors import FieldmarkError
from mllm.metrics import claims
from mllm.synthesis.teachers.cards import Teacher

WORDS = "a the two three red brown black bear bears dog dogs sits with and grass , . tall".split()
CAPTIONS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=5)


def test_the_richest_caption_comes_first_and_the_others_add_what_it_lacks() -> None:
    message = ["A bear in the grass", "A black bear sitting in tall grass.", "A bear with two birds."]
    assert Teacher().blend(message) == "A black bear sitting in tall grass. Two birds."


def test_the_majority_decides_what_is_contested() -> None:
    message = ["A brown bear sits by a river", "A black bear.", "A black bear in grass."]
    assert Teacher().blend(message) == "A bear sits by a river. A black bear. A black bear in grass."


def test_a_description_adds_and_never_overrules() -> None:
    assert Teacher().expand("A black bear sits.", "A brown bear, two birds") == "A black bear sits. Two birds."


def test_nothing_to_blend_is_an_error() -> None:
    with pytest.raises(FieldmarkError, match="at least one caption"):
        Teacher().blend(["", "  "])


@given(CAPTIONS)
def test_no_detail_is_lost_and_none_is_added(message: list[str]) -> None:
    whole = Teacher().blend(message)
    assert claims.kept_share(message, whole) == 1.0
    assert not claims.added(message, whole)
