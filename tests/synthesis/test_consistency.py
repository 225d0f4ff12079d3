"""A thought that gives the thing asked for marks of another is found; a true one is left in peace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.boxes import Box, Frame
from mllm.knowledge.cards import Cards, load_cards
from mllm.pocket.species import Species, species
from mllm.records import Sample, Thing
from mllm.synthesis import consistency, teachers, thoughts
from mllm.synthesis.capabilities import ReasoningRequest

BIRDS = species("bird")
POCKET = Cards({one.name: one.marks for one in BIRDS})
CARDS = Cards(
    {
        "black redstart": ["orange tail", "sooty breast", "white wing panel"],
        "common redstart": ["orange tail", "orange breast", "white forehead"],
        "wren": ["short tail", "barred wings"],
    }
)


def sample_of(names: list[str], target: int) -> Sample:
    step = 1 / len(names)
    things = tuple(Thing(n, Box(k * step, 0, (k + 1) * step, 1)) for k, n in enumerate(names))
    wanted = things[target]
    return Sample("s", "ground", "a", Frame(9, 9), "bird", wanted.entity, "?", (wanted.box,), things)


@given(st.lists(st.sampled_from(BIRDS), min_size=2, max_size=6, unique=True), st.data())
def test_the_oracle_agrees_and_a_swapped_mark_does_not(chosen: list[Species], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(chosen) - 1))
    sample = sample_of([one.name for one in chosen], target)
    thought = teachers.load("pocket").reason(ReasoningRequest(sample, POCKET, 0))
    assert consistency.contradictions(sample, thought, POCKET) == []
    mark = data.draw(st.integers(0, 3))
    others = [one.marks[mark] for one in BIRDS if one.marks[mark] != chosen[target].marks[mark]]
    wrong = data.draw(st.sampled_from(sorted(set(others))))
    head, rest = thought.split(".", 1)
    marks = [wrong if k == mark else own for k, own in enumerate(chosen[target].marks)]
    false = f"{sample.entity}: {', '.join(marks)}.{rest}"
    assert head != false.split(".", 1)[0]
    assert consistency.contradictions(sample, false, POCKET) == [wrong]


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("It has an orange tail and a sooty breast.", []),
        ("Its breast is dark, its legs are thin.", []),  # the card is silent about legs
        ("It shows a white forehead.", ["It shows a white forehead"]),  # the other's mark
        ("It has a red tail.", ["It has a red tail"]),  # the card says orange
        ("It has no white forehead.", []),
        ("Unlike the other it lacks the orange breast.", []),
        ("The common redstart would show a white forehead.", []),
    ],
)
def test_prose_is_judged_by_clause(prose: str, found: list[str]) -> None:
    sample = sample_of(["black redstart", "common redstart", "wren"], 0)
    thought = f"I look at <obj:1>, white forehead, and <obj:2>, short tail. Then <obj:0>. {prose}"
    assert consistency.contradictions(sample, thought, CARDS) == found
    recalled = f"{prose} <obj:1> no. <obj:2> no. So <obj:0>."
    assert consistency.contradictions(sample, recalled, CARDS) == found


def test_real_descriptors_quoted_by_cards_agree(shared_data) -> None:

    cards = load_cards(shared_data / "fg_knowledge" / "descriptors" / "descriptors_pets.json")
    names = list(cards)
    for start in range(0, len(names) - 3):
        sample = sample_of(names[start : start + 3], start % 3)
        for seed in range(3):
            thought = teachers.load("cards").reason(ReasoningRequest(sample, cards, seed))
            assert thoughts.problem(sample, thought, cards) is None, thought
