"""Captions of the same scene put together, thing by thing: what the oracle does that blends and expands captions."""

from __future__ import annotations

from collections.abc import Sequence

from mllm.captions import with_article
from mllm.pocket.captions import COLOURS, FORMS, KINDS, PATTERNS, claims

_KIND_OF = {word: kind for kind, words in zip(KINDS, (FORMS, COLOURS, PATTERNS), strict=False) for word in words}
_CONFLICT = 10
"""What a mark that disagrees weighs against one that agrees."""


class Told:
    """What is said of one thing: its noun, and at most one mark of each kind. What was said first stands."""

    def __init__(self, noun: str | None, marks: Sequence[str]) -> None:
        self.noun, self.marks = noun, {}
        for mark in marks:
            self.marks.setdefault(_KIND_OF.get(mark, "accent"), mark)

    def agreement(self, other: Told) -> int:
        """Marks that agree, less ten for each that does not."""
        both = [self.marks[kind] == other.marks[kind] for kind in self.marks.keys() & other.marks.keys()]
        return sum(1 if same else -_CONFLICT for same in both)

    def take(self, other: Told) -> None:
        """Add what the other says of kinds of marks that this one leaves out."""
        self.noun = self.noun or other.noun
        self.marks = {**other.marks, **self.marks}

    def phrase(self) -> str:
        """One sentence."""
        before = [self.marks[kind] for kind in KINDS[:3] if kind in self.marks]
        words = with_article(" ".join([*before, self.noun or "thing"]), capital=True)
        return f"{words} with {self.marks['accent']}." if "accent" in self.marks else f"{words}."


def read(text: str) -> list[Told]:
    """The things of which a text tells marks, in order."""
    return [Told(one.noun, one.marks) for one in claims(text) if one.marks]


def merge(captions: Sequence[str]) -> str:
    """One caption with the marks of all; where two disagree the earlier one wins.

    Captions tell their things from left to right, so things are matched in order if they can be, else so that as much
    as possible agrees (Kuhn 1955). Things that only a later caption tells come last.
    """
    whole = read(captions[0])
    for caption in captions[1:]:
        other = read(caption)
        places = _match(whole, other)
        for place, told in zip(places, other, strict=True):
            if place is None:
                whole.append(told)
            else:
                whole[place].take(told)
    return " ".join(told.phrase() for told in whole)


def _match(whole: Sequence[Told], other: Sequence[Told]) -> list[int | None]:
    """For each thing of `other` its place in `whole`; None for one that is not there."""
    from scipy.optimize import linear_sum_assignment

    worth = [[one.agreement(told) for one in whole] for told in other]
    if len(whole) == len(other) and all(worth[k][k] >= 0 for k in range(len(whole))):
        return list(range(len(whole)))
    places: list[int | None] = [None] * len(other)
    if whole and other:
        rows, columns = linear_sum_assignment(worth, maximize=True)
        for row, column in zip(rows, columns, strict=True):
            places[int(row)] = int(column)
    return places
