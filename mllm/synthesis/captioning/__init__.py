"""How a training caption comes out of what people wrote: one strategy a file; the file name is the registry.

A file defines `NEEDS`, the abilities (`mllm.synthesis.capabilities`) that it asks of the writer, and
`boost(image: Image, aid: Aid) -> str`, which writes one caption or raises `Refused` with a short stable reason.
`CHECKED = True` says that it is nothing without a checker. `check` is what every strategy's caption has to pass before
it is taken; a strategy may check more, and does.

The writer is a teacher that describes and edits; the checker is one that looks whether what is said can be seen. They
may be the same, but a checker that wrote the caption itself believes itself too often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mllm.captions import clauses, sentences, words
from mllm.errors import FieldmarkError
from mllm.metrics import claims
from mllm.records import Sample, Thing
from mllm.registry import Registry
from mllm.synthesis.capabilities import Look, Sees, TeacherError, need


class Refused(FieldmarkError):
    """A caption that is not taken. The message is the reason, short and stable, to be counted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caption has to be like."""

    least_words: int = 3
    most_words: int = 80
    kept: float = 1.0
    """Share of the details of what people wrote that has to stay, 0..1. Below 1 for writers that use synonyms."""
    rounds: int = 3
    """Rounds of describing and revising at most (`iiw`)."""
    marks: int = 5
    """Marks of its class that an image is described by (`gist`)."""


@dataclass(frozen=True, slots=True)
class Aid:
    """Who helps: the writer, the checker (None: nobody looks), known marks by class, and an encoder (`gist`)."""

    writer: Any = None
    checker: Sees | None = None
    cards: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encoder: Any = None
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Image:
    """What a strategy is given. `notes` counts what it did on the way (clauses dropped, rounds ...)."""

    sample: Sample
    image: Path
    seed: int
    notes: Counter[str] = field(default_factory=Counter, hash=False)

    @property
    def given(self) -> tuple[str, ...]:
        """The captions that people wrote, at least one."""
        if not self.sample.captions:
            raise Refused("nobody captioned it")
        return self.sample.captions

    def look(self, thing: Thing | None = None) -> Look:
        """What a teacher is shown: the whole image, or one thing of it; with its marks where they are known."""
        things = self.sample.things if thing is None else (thing,)
        facts = tuple(mark for one in things for mark in one.marks)
        return Look(self.image, self.sample.domain, None if thing is None else thing.box, facts)


@dataclass(frozen=True, slots=True)
class Boosted:
    """What became of one image: its captions, or why it has none; what was refused on the way; notes."""

    SCHEMA: ClassVar[str] = "fieldmark.boosted/1"

    id: str
    captions: tuple[str, ...]
    refused: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict, hash=False)


_FILES = Registry(__name__, "strategy")
names, load = _FILES.names, _FILES.load


def fit(name: str, aid: Aid, writer: str, checker: str | None) -> None:
    """Refuse helpers that cannot do what the strategy asks of them; `writer` and `checker` are their names."""
    for ability in load(name).NEEDS:
        need(aid.writer, ability, writer)
    if aid.checker is not None:
        need(aid.checker, Sees, str(checker))
    elif getattr(load(name), "CHECKED", False):
        raise FieldmarkError(f"strategy {name!r} drops what a checker does not see: name one with --checker")


def boost(name: str, sample: Sample, image: Path, aid: Aid, *, seed: int, variants: int, tries: int) -> Boosted:
    """Write up to `variants` different captions of one image, with `tries` attempts at each."""
    strategy: Callable[[Image, Aid], str] = load(name).boost
    captions: list[str] = []
    refused: list[str] = []
    notes: Counter[str] = Counter()
    for variant in range(variants):
        for attempt in range(tries):
            picture = Image(sample, image, seed + variant * tries + attempt, Counter())
            try:
                caption = strategy(picture, aid)
                check(caption, aid.limits, captions)
            except (Refused, TeacherError) as error:
                refused.append(error.reason if isinstance(error, TeacherError) else str(error))
                continue
            captions.append(caption)
            notes += picture.notes
            break
    return Boosted(sample.id, tuple(captions), tuple(refused), dict(sorted(notes.items())))


def check(caption: str, limits: Limits, others: Iterable[str] = ()) -> None:
    """Refuse a caption that is too short, too long, or there already."""
    count = len(words(caption))
    if count < limits.least_words:
        raise Refused("too short")
    if count > limits.most_words:
        raise Refused("too long")
    if words(caption) in [words(other) for other in others]:
        raise Refused("a duplicate of another caption of its image")


def keep_what_was_said(given: Sequence[str], caption: str, limits: Limits) -> None:
    """Refuse a caption that lost more details than the limits allow."""
    if claims.kept_share(given, caption) < limits.kept:
        raise Refused("lost details")


def contradict_nobody(trusted: str, caption: str) -> None:
    """Refuse a caption that gives a thing another colour or number than a trusted one does."""
    if claims.conflicts(trusted, caption):
        raise Refused("contradicts what people wrote")


def unseen(look: Look, told: Sequence[str], checker: Sees | None) -> tuple[str, ...]:
    """Return the clauses that the checker does not see, those it cannot tell included; none without a checker."""
    if checker is None or not told:
        return ()
    answers = checker.sees(look, told)
    return tuple(clause for clause, answer in zip(told, answers, strict=True) if not answer)


def news(before: Sequence[str], caption: str) -> tuple[str, ...]:
    """Return the clauses of a caption of which no single clause of the texts `before` holds all details.

    Known words put together anew (`red bird, blue cap` -> `blue bird`) are news.
    """
    known = [set(claims.details(clause)) for text in before for clause in clauses(text)]
    told = ((clause, set(claims.details(clause))) for clause in clauses(caption))
    return tuple(clause for clause, said in told if said and not any(said <= one for one in known))


def only_seen(picture: Image, before: Sequence[str], caption: str, checker: Sees | None) -> str:
    """Return a caption without those new clauses (`news`) that the checker does not see; "" where none is left.

    A sentence that loses a clause goes on with the others, parted by commas.
    """
    false = frozenset(unseen(picture.look(), news(before, caption), checker))
    if not false:
        return caption
    picture.notes["clauses dropped, not seen"] += len(false)
    kept = []
    for sentence in sentences(caption):
        told = clauses(sentence)
        left = [clause for clause in told if clause not in false]
        kept += [sentence] if len(left) == len(told) else [f"{', '.join(left)}."] if left else []
    return " ".join(kept)
