"""The pocket oracle: reasons about a composite of pocket photos from the world's own facts.

It recalls the entity's marks, goes through every thing from left to right saying where it is, what can be seen of it
and whether that fits, and names the number that does, with its box again: a small model that had to fetch the box of a
number for its answer found that the hardest step of all. A served 72B model would be asked for the same through the
same interface; the oracle is never wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllm.abilities import Look
from mllm.errors import FieldmarkError
from mllm.phrasing import asked_marks
from mllm.pocket.lessons import judged
from mllm.pocket.species import find
from mllm.teachers import Reasoning, targets


class Teacher:
    """Teacher interface over the pocket world."""

    def reason(self, request: Reasoning) -> str:
        """The reasoning for one sample; boxes as ``<obj:K>``, K counting ``sample.things`` from 0.

        Raises FieldmarkError when a thing is not of the pocket world, or the question does not fit the picture.
        """
        sample, asked = request.sample, asked_marks(request.sample)
        order = sorted(range(len(sample.things)), key=lambda index: sample.things[index].box.center[0])
        chosen = [number for number, index in enumerate(order, 1) if index in targets(sample)]
        if len(chosen) != 1 and sample.boxes and sample.task != "ground_all":
            raise FieldmarkError(
                f"sample {sample.id}: {len(chosen)} things are {sample.entity!r}; the oracle points at exactly one"
            )
        recalled = asked or find(sample.entity).marks
        looked = (_look(number, index, sample.things[index].entity, recalled) for number, index in enumerate(order, 1))
        ending = ", ".join(f"{number} <obj:{order[number - 1]}>" for number in chosen) or "none"
        subject = "marks" if asked else sample.entity
        return f"{subject}: {', '.join(recalled)}. {' '.join(looked)} So {ending}."

    def marks(self, entity: str, domain: str) -> tuple[str, ...]:
        """The four marks of a species."""
        return find(entity).marks

    def differences(self, entity: str, other: str, domain: str) -> tuple[tuple[str, str], ...]:
        """The marks in which two species differ."""
        pairs = zip(find(entity).marks, find(other).marks, strict=True)
        return tuple((own, its) for own, its in pairs if own != its)

    def sees(self, look: Look, marks: Sequence[str]) -> tuple[bool | None, ...]:
        """Whether each mark is among the facts of the picture; it cannot tell where none are given."""
        return tuple(mark in look.facts if look.facts else None for mark in marks)

    def describe(self, look: Look, *, seed: int = 0) -> str:
        """The facts of the picture, as one sentence."""
        return f"{', '.join(look.facts)}."


def _look(number: int, index: int, name: str, recalled: Sequence[str]) -> str:
    """One thing: its number, its place, each of its marks with whether it is one of those recalled, and the verdict.

    Verdicts stand beside what they are about: a small model that was only asked for the number at the end of a long
    list learned to describe everything and then picked at random.
    """
    return f"{number} <obj:{index}>: {judged(find(name).marks, recalled)}."
