"""What a teacher may be able to do. A teacher's class has the methods of some of these; programs ask for what they
need.

`openai` and `local` can do everything that their model can; `cards` reasons and knows; the pocket oracle does all from
the world's own facts. Methods are called from several threads at once, and the same call gives the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.records import Sample
from mllm.synthesis.usage import Report

A = TypeVar("A")


class TeacherError(FieldmarkError):
    """A teacher could not answer one request; the next one may go well. `reason` is short and stable, to be counted.

    What makes every request fail (a wrong key, an unknown model, a server that is gone) is a plain `FieldmarkError`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep the reason apart from the details, which differ from request to request."""
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)

    def __reduce__(self) -> tuple[type[TeacherError], tuple[str, str]]:
        """Pickle by the two arguments."""
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a teacher gets that reasons: a sample without a thought, its entities' cards, a seed for the wording."""

    sample: Sample
    cards: Mapping[str, tuple[str, ...]]
    seed: int
    image: Path | None = None
    """Where the sample's image lies; teachers that can see look at it."""


@dataclass(frozen=True, slots=True)
class Look:
    """An image to look at, or one box of it.

    `facts` are the marks that are known to be visible, where the image was drawn and they are known: the pocket
    oracle answers from them, every other teacher from the image alone.
    """

    image: Path
    domain: str
    box: Box | None = None
    facts: tuple[str, ...] = ()


@runtime_checkable
class Reasons(Protocol):
    """Writes reasoning for a grounding question."""

    def reason(self, request: Reasoning) -> str:
        """Write one thought, boxes as `<obj:K>`."""
        ...


@runtime_checkable
class Knows(Protocol):
    """Knows entities by name, without an image."""

    def marks(self, entity: str, domain: str) -> tuple[str, ...]:
        """Return the field marks of an entity, most telling first; empty when it knows none."""
        ...

    def differences(self, entity: str, other: str, domain: str) -> tuple[tuple[str, str], ...]:
        """Return what tells two entities apart, as pairs (mark of `entity`, mark of `other`)."""
        ...


@runtime_checkable
class Sees(Protocol):
    """Looks at images."""

    def sees(self, look: Look, marks: Sequence[str]) -> tuple[bool | None, ...]:
        """Say of each mark whether it is visible; None where it cannot tell."""
        ...

    def describe(self, look: Look, *, seed: int = 0) -> str:
        """Describe what is there in one or a few sentences."""
        ...


@runtime_checkable
class Points(Protocol):
    """Finds a named entity in an image."""

    def point(self, look: Look, entity: str, *, seed: int = 0) -> tuple[Box, ...]:
        """Return its boxes in the unit frame; empty when it is not there. Another seed is a second opinion."""
        ...


@runtime_checkable
class Edits(Protocol):
    """Rewrites captions."""

    def blend(self, captions: Sequence[str], *, seed: int = 0) -> str:
        """Merge captions of one image into one: lose no detail, add none."""
        ...

    def expand(self, caption: str, description: str, *, seed: int = 0) -> str:
        """Add details of `description` to `caption`; where the two disagree the caption wins."""
        ...


@runtime_checkable
class Reports(Protocol):
    """Costs something, may fail, and can tell. Programs print the report at their end."""

    def report(self) -> Report:
        """Return the tally so far: requests, tokens, cost, every failure."""
        ...

    def close(self) -> None:
        """Let go of connections and threads; the report stays."""
        ...


def need(teacher: object, ability: type[A], name: str) -> A:
    """Return a teacher that has an ability (one of the protocols above), or raise FieldmarkError; `name` is its own."""
    if not isinstance(teacher, ability):
        raise FieldmarkError(
            f"teacher {name!r} has not the ability {ability.__name__.lower()!r} that is asked of it; "
            f"`openai` and `local` have all that their model has"
        )
    return teacher
