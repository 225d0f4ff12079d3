"""The pocket oracle: reasons about a composite of pocket photos from the world's own facts.

It recalls the entity's marks, goes through every thing from left to right saying where it is and what can be seen of
it, and names the number that fits. A served 72B model would be asked for the same through the same interface; the
oracle is never wrong.
"""

from __future__ import annotations

from mllm.errors import FieldmarkError
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
        looked = (
            f"{number} <obj:{index}>: {_marks(sample.things[index].entity)}." for number, index in enumerate(order, 1)
        )
        return f"{sample.entity}: {_marks(sample.entity)}. {' '.join(looked)} So {chosen[0]}."


def _marks(name: str) -> str:
    return ", ".join(find(name).marks)
