"""Strategies that turn human captions into training captions: one strategy per file, named after the file.

A strategy defines `NEEDS`, the capabilities (`mllm.synthesis.capabilities`) its writer must have, and
`write(task: CaptionTask, helpers: Helpers) -> str`, which returns one caption or raises `CaptionRejected`.
`CHECKED = True` means that it only works with a checker. Every caption must also pass `check_caption`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mllm.captions import clauses, sentences, words
from mllm.errors import FieldmarkError
from mllm.io.codec import Int, Record
from mllm.metrics import claims
from mllm.records import Sample, Thing
from mllm.registry import Registry
from mllm.synthesis.capabilities import Look, Sees, TeacherError, need


class CaptionRejected(FieldmarkError):
    """A caption that is not used. The message is the reason: short and stable, so that it can be counted."""


@dataclass(frozen=True, slots=True)
class CaptionLimits:
    """What a caption must satisfy."""

    least_words: int = 3
    most_words: int = 80
    kept: float = 1.0
    """Share of the details in the human captions that must be kept, 0..1. Below 1 for writers that use synonyms."""
    rounds: int = 3
    """Maximum rounds of describing and revising (`iiw`)."""
    marks: int = 5
    """Maximum number of class marks in a caption (`gist`)."""


@dataclass(frozen=True, slots=True)
class Helpers:
    """What a strategy works with: two teachers, known marks by class, an encoder."""

    writer: Any = None
    """Describes and edits."""
    checker: Sees | None = None
    """Says what is visible; None: nothing is checked. A model that checks its own captions accepts too many of them."""
    cards: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encoder: Any = None
    """Dual encoder that compares marks with the image (`gist`)."""
    limits: CaptionLimits = CaptionLimits()


@dataclass(frozen=True, slots=True)
class CaptionTask:
    """One image to caption. `notes` counts what the strategy did on the way (clauses dropped, rounds ...)."""

    sample: Sample
    image: Path
    seed: int
    notes: Counter[str] = field(default_factory=Counter, hash=False)

    @property
    def given(self) -> tuple[str, ...]:
        """The human captions, at least one."""
        if not self.sample.captions:
            raise CaptionRejected("no human caption")
        return self.sample.captions

    def look(self, thing: Thing | None = None) -> Look:
        """Return what a teacher is asked about: the whole image or one thing in it, with its marks where known."""
        things = self.sample.things if thing is None else (thing,)
        facts = tuple(mark for one in things for mark in one.marks)
        return Look(self.image, self.sample.domain, None if thing is None else thing.box, facts)


@dataclass(frozen=True, slots=True)
class CaptionResult(Record):
    """The captions written for one image, the reasons for those rejected, and counts of what was done."""

    SCHEMA: ClassVar[str] = "fieldmark.boosted/1"

    id: str
    captions: tuple[str, ...]
    refused: tuple[str, ...] = ()
    notes: Mapping[str, Int] = field(default_factory=dict, hash=False)


_FILES = Registry(__name__, "strategy")
names, load = _FILES.names, _FILES.load


def check_helpers(name: str, helpers: Helpers, writer: str, checker: str | None) -> None:
    """Raise FieldmarkError if the helpers lack a capability the strategy needs; `writer` and `checker` are names."""
    for capability in load(name).NEEDS:
        need(helpers.writer, capability, writer)
    if helpers.checker is not None:
        need(helpers.checker, Sees, str(checker))
    elif getattr(load(name), "CHECKED", False):
        raise FieldmarkError(f"strategy {name!r} drops what a checker does not see: name a checker with --checker")


def write_captions(
    name: str, sample: Sample, image: Path, helpers: Helpers, *, seed: int, variants: int, tries: int
) -> CaptionResult:
    """Write up to `variants` different captions of one image, with up to `tries` attempts at each."""
    write: Callable[[CaptionTask, Helpers], str] = load(name).write
    captions, refused, notes = list[str](), list[str](), Counter[str]()
    for variant in range(variants):
        for attempt in range(tries):
            task = CaptionTask(sample, image, seed + variant * tries + attempt, Counter())
            try:
                caption = write(task, helpers)
                check_caption(caption, helpers.limits, captions)
            except (CaptionRejected, TeacherError) as error:
                refused.append(error.reason if isinstance(error, TeacherError) else str(error))
            else:
                captions.append(caption)
                notes += task.notes
                break
    return CaptionResult(sample.id, tuple(captions), tuple(refused), dict(sorted(notes.items())))


def check_caption(caption: str, limits: CaptionLimits, others: Iterable[str] = ()) -> None:
    """Reject a caption that is too short, too long, or has the same words as one of the `others`."""
    count = len(words(caption))
    if count < limits.least_words:
        raise CaptionRejected("too short")
    if count > limits.most_words:
        raise CaptionRejected("too long")
    if words(caption) in [words(other) for other in others]:
        raise CaptionRejected("a duplicate of another caption of its image")


def check_details_kept(given: Sequence[str], caption: str, limits: CaptionLimits) -> None:
    """Reject a caption that lost more details than the limits allow."""
    if claims.kept_share(given, caption) < limits.kept:
        raise CaptionRejected("lost details")


def check_no_conflict(trusted: str, caption: str) -> None:
    """Reject a caption that gives a thing another colour or number than a trusted caption does."""
    if claims.conflicts(trusted, caption):
        raise CaptionRejected("contradicts what people wrote")


def not_seen(look: Look, statements: Sequence[str], checker: Sees | None) -> tuple[str, ...]:
    """Return the statements that the checker does not see or cannot judge; none without a checker."""
    if checker is None or not statements:
        return ()
    answers = zip(statements, checker.sees(look, statements), strict=True)
    return tuple(statement for statement, answer in answers if not answer)


def new_clauses(before: Sequence[str], caption: str) -> tuple[str, ...]:
    """Return the clauses of a caption whose details are not all in one single clause of the texts `before`.

    Known words in a new combination (`red bird, blue cap` -> `blue bird`) count as new.
    """
    known = [set(claims.details(clause)) for text in before for clause in clauses(text)]
    found = ((clause, set(claims.details(clause))) for clause in clauses(caption))
    return tuple(clause for clause, details in found if details and not any(details <= one for one in known))


def drop_unseen(task: CaptionTask, before: Sequence[str], caption: str, checker: Sees | None) -> str:
    """Return a caption without its new clauses (`new_clauses`) that the checker does not see; "" if none is left.

    The remaining clauses of a sentence that loses one are joined by commas.
    """
    false = frozenset(not_seen(task.look(), new_clauses(before, caption), checker))
    if not false:
        return caption
    task.notes["clauses dropped, not seen"] += len(false)
    kept = []
    for sentence in sentences(caption):
        parts = clauses(sentence)
        left = [clause for clause in parts if clause not in false]
        kept += [sentence] if len(left) == len(parts) else [f"{', '.join(left)}."] if left else []
    return " ".join(kept)
