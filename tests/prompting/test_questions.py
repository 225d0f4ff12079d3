"""What a question asks by: kinds by share, marks that only one thing has, the pocket model's own wording."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.errors import FieldmarkError
from mllm.knowledge import domains
from mllm.prompting import questions
from mllm.prompting.questions import ABSENT, DESCRIPTION, NAME, SEVERAL

MARKS = st.lists(st.sampled_from(["red", "blue", "round", "tall", "plain"]), min_size=1, max_size=4, unique=True)


@given(MARKS, st.lists(MARKS, max_size=4), st.integers(0, 99))
def test_telling_marks_tell_and_are_found_whenever_all_of_them_tell(own, others, seed) -> None:
    chosen = questions.telling(own, others, random.Random(seed))
    info = all(not set(own) <= set(other) for other in others)
    assert (chosen is not None) == info
    if chosen is not None:
        assert set(chosen) <= set(own) and not any(set(chosen) <= set(other) for other in others)


def test_kinds_are_drawn_by_share() -> None:
    mixture = questions.Mixture(descriptions=0.2, absent=0.1, several=0.3)
    drawn = Counter(mixture.draw(random.Random(k)) for k in range(4000))
    assert {kind: round(count / 4000, 1) for kind, count in drawn.items()} == {
        DESCRIPTION: 0.2,
        ABSENT: 0.1,
        SEVERAL: 0.3,
        NAME: 0.4,
    }
    assert questions.Mixture().draw(random.Random(0)) == NAME
    assert questions.Mixture(1.0).draw(random.Random(0)) == DESCRIPTION


@pytest.mark.parametrize("shares", [(1.1, 0, 0), (-0.1, 0, 0), (0.5, 0.5, 0.5)])
def test_shares_without_meaning_are_refused(shares) -> None:
    with pytest.raises(FieldmarkError):
        questions.Mixture(*shares)


@pytest.mark.parametrize("name", domains.names())
def test_wordings_name_what_is_asked(name: str) -> None:
    domain = domains.load(name)
    for seed in range(20):
        rng = random.Random(seed)
        by_marks = questions.question(domain, DESCRIPTION, "Zork", ["red bill", "long tail"], rng, plain=False)
        assert "a red bill and a long tail" in by_marks and "Zork" not in by_marks and "{" not in by_marks
        noted = questions.question(domain, DESCRIPTION, "Zork", ["often sad", "red"], rng, plain=False)
        assert ": often sad and red" in noted
        whole = questions.question(domain, DESCRIPTION, "Zork", ["red", "long tail"], rng, plain=False)
        assert " is red, with a long tail" in whole
        every = questions.question(domain, SEVERAL, "Zork", [], rng, plain=False)
        assert "Zork" in every and "{" not in every
    plain = questions.question(domain, DESCRIPTION, "Zork", ["red", "plain"], random.Random(0), plain=True)
    assert plain == f"Find the {domain.noun} with marks red, plain."
    assert (
        questions.question(domain, ABSENT, "Zork", [], random.Random(0), plain=True) == f"Find the {domain.noun} Zork."
    )
