"""Merges captions of the same scene thing by thing, for the oracle that blends and expands captions."""

from __future__ import annotations

from collections.abc import Sequence

from mllm.captions import with_article
from mllm.pocket.captions import claims
from mllm.pocket.species import KIND_OF, KINDS

_CONFLICT = 10
"""Weight of a mark that disagrees, relative to one that agrees."""


class DescribedThing:
    """The description of one thing: its noun, and at most one mark of each kind. The first mark of a kind is kept."""

    def __init__(self, noun: str | None, marks: Sequence[str]) -> None:
        self.noun, self.marks = noun, {}
        for mark in marks:
            self.marks.setdefault(KIND_OF.get(mark, "accent"), mark)

    def agreement(self, other: DescribedThing) -> int:
        """Return the number of marks that agree, minus ten for each that does not."""
        both = [self.marks[kind] == other.marks[kind] for kind in self.marks.keys() & other.marks.keys()]
        return sum(1 if same else -_CONFLICT for same in both)

    def update(self, other: DescribedThing) -> None:
        """Add the noun and the kinds of marks that this description lacks."""
        self.noun = self.noun or other.noun
        self.marks = {**other.marks, **self.marks}

    def phrase(self) -> str:
        """Return the description as one sentence."""
        before = [self.marks[kind] for kind in KINDS[:3] if kind in self.marks]
        words = with_article(" ".join([*before, self.noun or "thing"]), capital=True)
        return f"{words} with {self.marks['accent']}." if "accent" in self.marks else f"{words}."


def read(text: str) -> list[DescribedThing]:
    """Return the things that a text gives marks of, in order."""
    return [DescribedThing(one.noun, one.marks) for one in claims(text) if one.marks]


def merge(captions: Sequence[str]) -> str:
    """Merge captions into one with the marks of all; where two disagree, the earlier one wins.

    Captions name their things from left to right, so things are matched in order if possible, else so that as much as
    possible agrees (Kuhn 1955). Things that only a later caption names come last.
    """
    merged = read(captions[0])
    for caption in captions[1:]:
        other = read(caption)
        for place, thing in zip(_match(merged, other), other, strict=True):
            if place is None:
                merged.append(thing)
            else:
                merged[place].update(thing)
    return " ".join(thing.phrase() for thing in merged)


def _match(merged: Sequence[DescribedThing], other: Sequence[DescribedThing]) -> list[int | None]:
    """Return for each thing of `other` its place in `merged`; None if it is not there."""
    from scipy.optimize import linear_sum_assignment

    agreement = [[one.agreement(thing) for one in merged] for thing in other]
    if len(merged) == len(other) and all(agreement[k][k] >= 0 for k in range(len(merged))):
        return list(range(len(merged)))
    places: list[int | None] = [None] * len(other)
    if merged and other:
        rows, columns = linear_sum_assignment(agreement, maximize=True)
        for row, column in zip(rows, columns, strict=True):
            places[int(row)] = int(column)
    return places
