"""Captions of pocket scenes and their claims: written and read back, held against the truth by hand-worked cases."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.errors import FieldmarkError
from mllm.pocket.captions import Claims, claims, fits, judge, phrase, rich, sparse
from mllm.pocket.look_alikes import COUNTS, LEVELS, look_alikes
from mllm.pocket.species import DOMAINS, random_marks

TWO = (("round", "red", "striped", "blue cap"), ("wide", "green", "plain", "white cap"))


def test_phrases_say_what_they_are_asked_to() -> None:
    assert phrase("bird", TWO[0]) == "round red striped bird with blue cap"
    assert phrase("bird", TWO[0], ("colour",)) == "red bird"
    assert phrase("reptilia", ("tall", "orange", "banded", "red crest"), ("accent",)) == "reptile with red crest"
    assert rich("bird", TWO) == "A round red striped bird with blue cap. A wide green plain bird with white cap."


def test_claims_are_read_from_captions_listings_and_broken_text() -> None:
    assert claims(rich("bird", TWO)) == tuple(Claims("bird", marks) for marks in TWO)
    assert claims("An orange bird and a bird with blue cap.") == (
        Claims("bird", ("orange",)),
        Claims("bird", ("blue cap",)),
    )
    listing = "1 (3,9),(40,55): round, red, striped, blue cap. 2 (50,1),(9,9): wide, green, plain, white cap."
    assert claims(listing) == tuple(Claims(None, marks) for marks in TWO)
    assert claims("red blue green green bird") == (Claims("bird", ("red", "blue", "green")),)
    assert claims("A red, a blue bird") == (Claims(None, ("red",)), Claims("bird", ("blue",)))
    assert claims("bird bird with cap blue") == (Claims("bird", ()), Claims("bird", ("blue",)))
    assert claims("") == claims("Nothing to see here, <answer>") == ()


@given(st.randoms(use_true_random=False), st.sampled_from(DOMAINS), st.integers(1, 4))
def test_true_captions_are_all_true(rng: random.Random, domain: str, count: int) -> None:
    things = [random_marks(rng).phrases(domain) for _ in range(count)]
    full = judge(rich(domain, things), things)
    assert (full.right, full.claimed, full.true, full.things_claimed) == (4 * count, 4 * count, 4 * count, count)
    short = judge(sparse(domain, things, rng), things)
    assert count <= short.right == short.claimed <= 2 * count and short.precision == 1
    assert fits(claims(sparse(domain, things, rng)), domain, things)


@given(st.text(max_size=60) | st.lists(st.sampled_from("a and red blue cap bird round . 1".split())).map(" ".join))
def test_any_text_can_be_judged(text: str) -> None:
    found = judge(text, TWO)
    assert 0 <= found.right <= found.claimed and found.right <= found.true == 8


def test_judging_by_hand() -> None:
    one_wrong = judge("A round red plain bird. A wide green bird with white cap.", TWO)
    assert (one_wrong.right, one_wrong.claimed, one_wrong.recall) == (5, 6, 5 / 8)
    swapped = judge("A wide green plain bird with white cap. A round red striped bird with blue cap.", TWO)
    assert swapped.precision == swapped.recall == 1
    bound = judge("A round red striped bird with white cap. A wide green plain bird with blue cap.", TWO)
    assert (bound.right, bound.claimed) == (6, 8), "marks belong to their thing"
    three = judge("A red bird. A green bird. A red bird.", TWO)
    assert (three.right, three.claimed, three.things_claimed, three.things_true) == (2, 3, 3, 2)
    assert judge("", TWO).precision == 0


def test_a_caption_fits_a_scene_when_each_phrase_has_its_own_thing() -> None:
    assert fits(claims("A round bird and a wide bird."), "bird", TWO)
    assert not fits(claims("A round bird and a red bird."), "bird", TWO)
    assert not fits(claims("A red car."), "bird", TWO)
    assert not fits(claims("A bird. A bird. A bird."), "bird", TWO)


@pytest.mark.parametrize("level", LEVELS)
def test_bags_are_what_they_say(level: str) -> None:
    for seed in range(3):
        bag = look_alikes(seed, 5, level)
        things = [frozenset(thing.look for thing in scene.things) for scene in bag]
        assert len(set(things)) == 5 and len({scene.domain for scene in bag}) == 1
        assert {len(scene.things) for scene in bag} <= set(COUNTS)
        assert all(scene.image.size == (192, 192) for scene in bag)
        for scene in bag:
            assert judge(rich(scene.domain, scene.marks), scene.marks).precision == 1
        if level == "hard":  # all but one are one mark away from the base, so two differ in two marks at most
            for mine in things:
                for other in things:
                    assert len(mine - other) <= 2
    again = look_alikes(2, 5, level)
    assert [scene.image.tobytes() for scene in again] == [scene.image.tobytes() for scene in bag]


def test_bags_of_twenty_exist_even_of_one_thing() -> None:
    assert len(look_alikes("many", 20, "hard", count=1)) == 20


def test_unknown_levels_and_sizes_are_refused() -> None:
    with pytest.raises(FieldmarkError, match="easy, medium, hard"):
        look_alikes(0, 3, "harder")
    with pytest.raises(FieldmarkError, match="1 to 20"):
        look_alikes(0, 21)
