"""Protocols for what a teacher can do. A teacher implements some of them; programs check for those they need (`need`).

`openai` and `local` implement all of them; `cards` reasons, knows and edits; the pocket oracle does everything from the
world's own facts. Methods are called from several threads at once; the same call gives the same result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.records import Sample

A = TypeVar("A")


class TeacherError(FieldmarkError):
    """One request to a teacher failed; the next may succeed. `reason` is short and stable, so that it can be counted.

    What makes every request fail (a wrong key, an unknown model, a server that is gone) is a plain `FieldmarkError`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep the reason apart from the detail, which differs from request to request."""
        self.reason, self.detail = reason, detail
        super().__init__(reason, detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(frozen=True, slots=True)
class ReasoningRequest:
    """What a reasoning teacher is given: a sample without a thought, its entities' cards, a seed for the wording."""

    sample: Sample
    cards: Mapping[str, tuple[str, ...]]
    seed: int
    image: Path | None = None
    """Path of the sample's image, for teachers that can see."""


@dataclass(frozen=True, slots=True)
class Look:
    """An image to look at, or one box of it."""

    image: Path
    domain: str
    box: Box | None = None
    facts: tuple[str, ...] = ()
    """Marks that are known to be visible in a drawn image, for the pocket oracle alone."""


@runtime_checkable
class Reasons(Protocol):
    """Writes reasoning for a grounding question."""

    def reason(self, request: ReasoningRequest) -> str:
        """Write a thought that looks at every thing and ends on the answer (`mllm.synthesis.thoughts` checks it).

        It refers to boxes as `<obj:K>`, K an index into `sample.things`, and reads as if found by looking.
        """
        ...


@runtime_checkable
class Knows(Protocol):
    """Knows entities by name, without an image."""

    def marks(self, entity: str, domain: str) -> tuple[str, ...]:
        """Return the field marks of an entity, most distinctive first; empty if it knows none."""
        ...

    def differences(self, entity: str, other: str, domain: str) -> tuple[tuple[str, str], ...]:
        """Return how two entities differ, as pairs (mark of `entity`, mark of `other`)."""
        ...


@runtime_checkable
class Sees(Protocol):
    """Looks at images."""

    def sees(self, look: Look, marks: Sequence[str]) -> tuple[bool | None, ...]:
        """Return for each mark whether it is visible; None where it cannot tell."""
        ...

    def describe(self, look: Look, *, seed: int = 0) -> str:
        """Describe the image, or the box, in one or a few sentences."""
        ...


@runtime_checkable
class Points(Protocol):
    """Finds a named entity in an image."""

    def point(self, look: Look, entity: str, *, seed: int = 0) -> tuple[Box, ...]:
        """Return its boxes in the unit frame; empty if it is not there. Another seed gives a second opinion."""
        ...


@runtime_checkable
class Edits(Protocol):
    """Rewrites captions."""

    def blend(self, captions: Sequence[str], *, seed: int = 0) -> str:
        """Merge captions of one image into one, without losing or adding a detail."""
        ...

    def expand(self, caption: str, description: str, *, seed: int = 0) -> str:
        """Add details of `description` to `caption`; where the two disagree, the caption wins."""
        ...


_VERBS = {
    "Reasons": "write reasoning",
    "Knows": "name the marks of an entity",
    "Sees": "look at images",
    "Points": "point at boxes",
    "Edits": "edit captions",
}


def need(teacher: object, capability: type[A], name: str) -> A:
    """Return the teacher; raises FieldmarkError, with its `name`, if it lacks a capability (a protocol above)."""
    if not isinstance(teacher, capability):
        raise FieldmarkError(
            f"teacher {name!r} cannot {_VERBS[capability.__name__]}; `openai` and `local` can do what their model can"
        )
    return teacher
