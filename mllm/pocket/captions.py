"""Captions of pocket scenes, and what a caption claims: exact, because everything about a scene is known.

A caption describes its things from left to right, one phrase each: ``A round red striped bird with blue cap.`` A sparse
one omits most marks, as people do who caption an image on its own; a rich one omits none. Claims can be read from any
text in the pocket world's words, model output included.
"""

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllm.captions import with_article
from mllm.pocket.species import ACCENT_PARTS, COLOURS, KIND_OF, KINDS, NOUNS, random_marks

MarksOfThings = Sequence[Sequence[str]]
"""For each thing its four marks as words, ``("round", "red", "striped", "blue cap")``."""

_DOMAIN_OF = {noun: domain for domain, noun in NOUNS.items()}
_PARTS = frozenset(ACCENT_PARTS.values())
_WORD = re.compile(r"[a-z]+|[.;:!?\n]|\d+")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a caption claims about one thing: its noun, if named, and its marks as words, each once."""

    noun: str | None
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """Claims compared with the truth: ``right`` of ``claimed`` marks are correct, out of ``true`` ones; and things."""

    right: int
    claimed: int
    true: int
    things_claimed: int
    things_true: int

    @property
    def precision(self) -> float:
        """Share of the claimed marks that are correct, 0..1; 0 if nothing was claimed."""
        return self.right / self.claimed if self.claimed else 0.0

    @property
    def recall(self) -> float:
        """Share of the true marks that were claimed, 0..1."""
        return self.right / self.true if self.true else 0.0


def phrase(domain: str, marks: Sequence[str], kinds: Collection[str] = KINDS) -> str:
    """Describe one thing with the marks of the given kinds: ``round red striped bird with blue cap``."""
    return _phrase(NOUNS[domain], {kind: mark for kind, mark in zip(KINDS, marks, strict=True) if kind in kinds})


def _phrase(noun: str, marks: Mapping[str, str]) -> str:
    words = " ".join([*(marks[kind] for kind in KINDS[:3] if kind in marks), noun])
    return f"{words} with {marks['accent']}" if "accent" in marks else words


def rich(domain: str, things: MarksOfThings) -> str:
    """Describe all marks of all things, left to right, one sentence each."""
    return _sentences([phrase(domain, marks) for marks in things])


def sparse(domain: str, things: MarksOfThings, rng: random.Random, most: int = 2) -> str:
    """Describe each thing with one to ``most`` marks, in one sentence, as people do who see no other image."""
    return _one_sentence([phrase(domain, marks, rng.sample(KINDS, rng.randint(1, most))) for marks in things])


def varied(domain: str, things: MarksOfThings, rng: random.Random) -> str:
    """Describe each thing with any number of its marks, in one sentence or in one each."""
    phrases = [phrase(domain, marks, rng.sample(KINDS, rng.randint(0, len(KINDS)))) for marks in things]
    return _sentences(phrases) if rng.random() < 0.5 else _one_sentence(phrases)


def _sentences(phrases: Sequence[str]) -> str:
    return " ".join(f"{with_article(words, capital=True)}." for words in phrases)


def _one_sentence(phrases: Sequence[str]) -> str:
    return f"{' and '.join(with_article(words, capital=index == 0) for index, words in enumerate(phrases))}."


def claims(text: str) -> tuple[Claims, ...]:
    """Read what a text claims, thing by thing.

    A thing's phrase ends at a full stop, at a number, or at ``and``, ``a`` and ``an`` once it has a noun or a mark; so
    captions, the base's own listings and broken model text can all be read. Every mark counts once per phrase: calling
    a thing red, blue and green makes three claims.
    """
    found: list[Claims] = []
    noun: str | None = None
    marks: list[str] = []
    waiting: str | None = None  # a colour that may belong to a part

    def close() -> None:
        nonlocal noun, marks, waiting
        if waiting:
            marks.append(waiting)
        if noun or marks:
            found.append(Claims(noun, tuple(dict.fromkeys(marks))))
        noun, marks, waiting = None, [], None

    for word in _WORD.findall(text.lower()):
        if waiting:
            marks.append(f"{waiting} {word}" if word in _PARTS else waiting)
            waiting = None
        if word in COLOURS:
            waiting = word
        elif word in KIND_OF:
            marks.append(word)
        elif word in _DOMAIN_OF:
            if noun:
                close()
            noun = word
        elif not word.isalpha() or (word in ("and", "a", "an") and (noun or marks)):
            close()
    close()
    return tuple(found)


def foreign_mark(things: MarksOfThings) -> str | None:
    """Return the first mark that is not of the pocket world, so that `claims` cannot read it from a caption."""
    return next((mark for marks in things for mark in marks if [one.marks for one in claims(mark)] != [(mark,)]), None)


def judge(text: str, things: MarksOfThings) -> Judged:
    """Compare a caption's claims with a scene's marks.

    Phrases are matched to things so that as many claims as possible are right (Kuhn 1955), whatever their order. All
    claims of phrases beyond the number of things are wrong.
    """
    found = claims(text)
    right = _best_match([[sum(mark in thing for mark in one.marks) for thing in things] for one in found])
    claimed, true = sum(len(one.marks) for one in found), sum(len(thing) for thing in things)
    return Judged(right, claimed, true, len(found), len(things))


def fits(claimed: Sequence[Claims], domain: str, things: MarksOfThings) -> bool:
    """Return whether a scene agrees with all claims of a caption: each phrase with a different thing."""
    if len(claimed) > len(things) or any(one.noun not in (None, NOUNS[domain]) for one in claimed):
        return False
    agree = [[float(all(mark in thing for mark in one.marks)) for thing in things] for one in claimed]
    return _best_match(agree) == len(claimed)


def merge(captions: Sequence[str]) -> str:
    """Merge captions of one scene into one with the marks of all; where two disagree, the earlier one wins.

    Captions name their things from left to right, so things are matched in order if possible, else so that as much as
    possible agrees (Kuhn 1955). Things that only a later caption names come last.
    """
    merged = _described(captions[0])
    for caption in captions[1:]:
        other = _described(caption)
        for place, (noun, marks) in zip(_places(merged, other), other, strict=True):
            if place is None:
                merged.append((noun, marks))
            else:
                merged[place] = merged[place][0] or noun, {**marks, **merged[place][1]}
    return _sentences([_phrase(noun or "thing", marks) for noun, marks in merged])


def _described(text: str) -> list[tuple[str | None, dict[str, str]]]:
    """Return for each thing that a text gives marks of its noun, and the first mark of each kind."""
    read = [one for one in claims(text) if one.marks]
    return [(one.noun, {KIND_OF.get(mark, "accent"): mark for mark in reversed(one.marks)}) for one in read]


def _places(merged: Sequence[Any], other: Sequence[Any]) -> list[int | None]:
    """Return for each described thing of `other` its place in `merged`; None if it is not there."""
    from scipy.optimize import linear_sum_assignment

    # The number of marks that agree, minus ten for each that does not.
    agreement = [
        [sum(1 if mine[kind] == marks[kind] else -10 for kind in mine.keys() & marks.keys()) for _, mine in merged]
        for _, marks in other
    ]
    if len(merged) == len(other) and all(agreement[k][k] >= 0 for k in range(len(merged))):
        return list(range(len(merged)))
    places: list[int | None] = [None] * len(other)
    if merged and other:
        for row, column in zip(*linear_sum_assignment(agreement, maximize=True), strict=True):
            places[int(row)] = int(column)
    return places


def _best_match(worth: Sequence[Sequence[float]]) -> int:
    """Return the largest sum of a matrix with one entry per row and column."""
    if not worth or not worth[0]:
        return 0
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(worth, maximize=True)
    return int(sum(worth[row][column] for row, column in zip(rows, columns, strict=True)))


def varied_corpus(count: int) -> list[str]:
    """Return varied captions of scenes that are never drawn: what a grammar head is trained on as human."""
    return [varied(*_imagined(rng), rng) for rng in (random.Random(f"varied/{number}") for number in range(count))]


def reference_corpus(images: int = 2000) -> list[tuple[str, ...]]:
    """Return captions of scenes that are never drawn, four sparse ones and a rich one each, to count words in."""
    rngs = [random.Random(f"corpus/{number}") for number in range(images)]
    scenes = [(*_imagined(rng), rng) for rng in rngs]
    return [(*(sparse(*scene) for _ in range(4)), rich(*scene[:2])) for scene in scenes]


def _imagined(rng: random.Random) -> tuple[str, MarksOfThings]:
    domain = rng.choice(tuple(NOUNS))
    return domain, [random_marks(rng).phrases(domain) for _ in range(rng.choice((1, 2, 2, 3)))]
