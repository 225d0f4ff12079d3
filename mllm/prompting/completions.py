"""Reading what a model wrote for a sample: one way for transformers, vLLM, training and re-scoring."""

from __future__ import annotations

from dataclasses import dataclass

from mllm.models.families import Budget, Family
from mllm.prompting.tasks import task_of
from mllm.records import Completion, Sample


@dataclass(frozen=True, slots=True)
class CompletionReader:
    """Reads completions of one checkpoint.

    Args:
        family: how it writes boxes.
        budget: how it resizes images, which decides the frame of its numbers.
        opening: what the chat template writes at the start of the model's turn (`template_opening`); empty
            for texts that hold it already.
    """

    family: Family
    budget: Budget
    opening: str = ""

    def read(self, sample: Sample, text: str, *, tokens: int | None = None, truncated: bool = False) -> Completion:
        """Return the completion of a sample: the whole text, its answer, and how long it was."""
        frame = self.family.frame(sample.size, self.budget)
        text, answer = task_of(sample).read(text, self.opening, self.family, frame)
        return Completion(sample.id, text, answer, tokens=tokens, truncated=truncated)
