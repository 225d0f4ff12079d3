"""What captions say of one another, worked out by hand."""

from __future__ import annotations

import pytest

from mllm.metrics import claims

BEARS = ("A black bear sits.", "A brown bear in grass.", "A black bear with two birds.")


@pytest.mark.parametrize("word", ["picture", "photo", "image", "photograph"])
def test_words_for_the_image_itself_are_no_details(word: str) -> None:
    assert claims.details(f"A {word} of a dog") == ("dog",)


def test_details_are_content_words_without_their_plural() -> None:
    assert claims.details("Two grey buses and a taxi") == ("two", "gray", "bus", "taxi")
    assert claims.details("There is a man's hat on the dog") == ("man", "hat", "dog")


def test_lost_added_and_kept() -> None:
    assert claims.lost(["a red car", "a car at night"], "a car, night") == ("red",)
    assert claims.added(["a red car"], "a red car and a dog") == ("dog",)
    assert claims.kept_share(["a red car", "a car at night"], "a car at night") == pytest.approx(2 / 3)
    assert claims.kept_share(["it is"], "anything") == 1.0


def test_conflicts_name_both_sides_and_leave_several_things_alone() -> None:
    assert claims.conflicts("a black bear", "a large brown bear") == ("black bear / brown",)
    assert claims.conflicts("two dogs", "three big dogs") == ("two dog / three",)
    assert claims.conflicts("a black bear and a brown bear", "a white bear") == ()
    assert claims.conflicts("a grey cat", "a gray cat") == ()


def test_of_two_sides_one_is_enough() -> None:
    captions = ["A black bear sits.", "A brown bear in grass.", "A black bear by a tree."]
    # bear, sit, grass, tree are asked for, and one of the two colours.
    assert claims.kept_share(captions, "A black bear sits in grass by a tree.") == 1.0
    assert claims.kept_share(captions, "A black bear sits in grass.") == pytest.approx(4 / 5)
    assert claims.kept_share(captions, "A bear sits in grass by a tree.") == pytest.approx(4 / 6), (
        "neither side is kept"
    )
    two = ["A black bear and a bear", "A brown bear"]
    assert claims.kept_share(two, "A black bear") == pytest.approx(2 / 3), "these may be two bears"


def test_a_text_is_settled_by_the_majority_and_on_ties_by_the_first() -> None:
    assert claims.settled("A Brown bear in grass.", BEARS) == "A bear in grass."
    assert claims.settled("A black bear sits.", BEARS) == "A black bear sits."
    assert claims.settled("three dogs, one red", ["two dogs", "three dogs"]) == "dogs, one red"
