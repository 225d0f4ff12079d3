"""The pocket oracle: reasons about a composite of pocket photos from the world's own facts.

It recalls the entity's marks, goes through every thing from left to right saying where it is, what can be seen of it
and whether that fits, and names the number that does, with its box again: a small model that had to fetch the box of a
number for its answer found that the hardest step of all. A served 72B model would be asked for the same through the
same interface; the oracle is never wrong.
"""

from __future__ import annotations

from mllm.errors import FieldmarkError
from mllm.pocket.lessons import judged
from mllm.pocket.species import find
from mllm.teachers import Reasoning


class Teacher:
    """Teacher interface over the pocket world."""

    def reason(self, request: Reasoning) -> str:
        """The reasoning for one sample; boxes as ``<obj:K>``, K counting ``sample.things`` from 0.

        Raises FieldmarkError when a thing is not of the pocket world.
        """
        sample = request.sample
        order = sorted(range(len(sample.things)), key=lambda index: sample.things[index].box.center[0])
        chosen = [number for number, index in enumerate(order, 1) if sample.things[index].entity == sample.entity]
        if len(chosen) != 1:
            raise FieldmarkError(
                f"sample {sample.id}: {len(chosen)} things are {sample.entity!r}; the oracle points at exactly one"
            )
        things = sample.things
        looked = (_look(number, index, things[index].entity, sample.entity) for number, index in enumerate(order, 1))
        choice = f"{chosen[0]} <obj:{order[chosen[0] - 1]}>"
        return f"{sample.entity}: {_marks(sample.entity)}. {' '.join(looked)} So {choice}."


def _look(number: int, index: int, name: str, asked: str) -> str:
    """One thing: its number, its place, each of its marks with whether it is one of those recalled, and the verdict.

    Verdicts stand beside what they are about: a small model that was only asked for the number at the end of a long
    list learned to describe everything and then picked at random.
    """
    return f"{number} <obj:{index}>: {judged(find(name).marks, find(asked).marks)}."


def _marks(name: str) -> str:
    return ", ".join(find(name).marks)
