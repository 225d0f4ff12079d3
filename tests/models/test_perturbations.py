"""Captions are spoiled in the five published ways, each by hand once and over random captions."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.models.perturbations import MOST, WAYS, corrupt, vocabulary_of

WORDS = ["a", "red", "bird", "with", "blue", "cap"]
OTHER = ["tree", "green"]
captions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12)
seeds = st.integers(0, 2**32)


class Fixed(random.Random):
    """Answers `randint` from a list, so that a case can be worked by hand; `choice` takes the first."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(0)
        self.numbers = list(numbers)

    def randint(self, a: int, b: int) -> int:
        number = self.numbers.pop(0)
        assert a <= number <= b
        return number

    def choice(self, seq):  # type: ignore[no-untyped-def]
        return seq[0]

    def sample(self, population, k, **_):  # type: ignore[no-untyped-def]
        return list(population)[:k]


@pytest.mark.parametrize(
    ("way", "numbers", "expected"),
    [
        ("repeat", [2, 1, 1, 6], "a red bird with blue cap red bird"),  # the 2-gram from word 1, once, at the end
        ("remove", [2, 4], "a red bird with"),  # the 2-gram from word 4
        ("insert", [2, 0, 7], "tree a red bird with blue cap tree"),  # two words, at both ends
        ("replace", [2], "tree tree bird with blue cap"),  # the first two words
    ],
)
def test_by_hand(way: str, numbers: list[int], expected: str) -> None:
    assert " ".join(WAYS[way](WORDS, Fixed(numbers), OTHER)) == expected


@given(captions, seeds)
def test_what_each_way_keeps(words: list[str], seed: int) -> None:
    made = {way: WAYS[way](words, random.Random(seed), OTHER) for way in WAYS}
    before = Counter(words)
    assert before <= Counter(made["repeat"]) and set(made["repeat"]) == set(words)
    assert len(words) < len(made["repeat"]) <= len(words) + MOST * MOST
    assert Counter(made["remove"]) <= before and max(1, len(words) - MOST) <= len(made["remove"]) <= len(words)
    assert Counter(made["insert"]) - before and set(made["insert"]) <= {*words, *OTHER}
    assert len(words) < len(made["insert"]) <= len(words) + MOST
    changed = sum(a != b for a, b in zip(words, made["replace"], strict=True))
    assert 1 <= changed <= MOST
    assert Counter(made["shuffle"]) == before


@given(captions, seeds)
def test_a_spoiled_caption_is_never_the_caption(words: list[str], seed: int) -> None:
    spoiled, way = corrupt(" ".join(words), random.Random(seed), OTHER)
    assert spoiled != " ".join(words) and way in WAYS
    assert (spoiled, way) == corrupt(" ".join(words), random.Random(seed), OTHER), "the same seed, the same caption"


@pytest.mark.parametrize(
    ("caption", "vocabulary", "way"), [("", OTHER, None), ("a bird", [], None), ("bird", OTHER, "shuffle")]
)
def test_what_cannot_be_spoiled_is_said(caption: str, vocabulary: list[str], way: str | None) -> None:
    with pytest.raises(ValueError, match="cannot be corrupted"):
        corrupt(caption, random.Random(0), vocabulary, way)


def test_the_vocabulary_is_every_word_once() -> None:
    assert vocabulary_of(["a red bird", "a blue bird"]) == ["a", "bird", "blue", "red"]
