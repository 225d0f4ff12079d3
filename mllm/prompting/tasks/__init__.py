"""Tasks: how a sample is asked, what its right answer is, how model text is read, and how it is scored.

One task a file; the file's name is `Sample.task`. To add one, write `mllm/prompting/tasks/<name>.py` with a class
`Task(BaseTask)` and add the name to `mllm.records.TaskName`.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from mllm.boxes import Box, Frame
from mllm.errors import RecordError
from mllm.models.families import Budget, Family
from mllm.prompting import answers
from mllm.prompting.prompts import styled, suffix
from mllm.records import Answer, Completion, Sample
from mllm.registry import Registry


class BaseTask:
    """One kind of question. Tasks hold no state."""

    has_boxes: ClassVar[bool] = True
    """Whether the answer is a box, several boxes, or that nothing fits."""

    def user_text(self, sample: Sample, style: str) -> str:
        """Return the text of the user's turn."""
        return styled(sample.question, style)

    def check(self, sample: Sample, style: str, *, target: bool = True) -> None:
        """Raise `RecordError` for a sample that cannot be trained on. Names the sample and the field.

        `target`: the target in this prompt style is needed (SFT); otherwise only what rewards look at (RL).
        """
        raise _untrained(sample)

    def target(self, sample: Sample, style: str, family: Family, frame: Frame) -> str:
        """Return the text that the model should write.

        Raises `RecordError`: style `plain`, which has no target; otherwise as `check`.
        """
        if not suffix(style):
            raise RecordError(f"sample {sample.id}: prompt style {style!r} has no target to train on")
        self.check(sample, style)
        return self._target(sample, style, family, frame)

    def _target(self, sample: Sample, style: str, family: Family, frame: Frame) -> str:
        """Write the target of a sample that passed `check`."""
        raise _untrained(sample)

    def read(self, text: str, opening: str, family: Family, frame: Frame) -> tuple[str, Answer]:
        """Read model text: return the whole text, with the `opening` that the chat template wrote, and the answer."""
        text = answers.whole(opening, text)
        return text, answers.parse(text, family, frame)

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """Return the boxes that a right answer names."""
        return ()

    def score(self, answer: Answer, sample: Sample) -> float | None:
        """Score an answer, 0..1; None where one answer cannot be scored alone (captions are scored within bags)."""
        return None

    def is_right(self, answer: Answer, sample: Sample) -> bool:
        """Whether an answer counts as right in the benchmark."""
        raise RecordError(f"sample {sample.id}: answers of task {sample.task!r} are not right or wrong by themselves")


_FILES = Registry(__name__, "task", "Task")
names = _FILES.names


@cache
def load(name: str) -> BaseTask:
    """Return the task called `name`; an unknown name is an error that lists the known ones."""
    return _FILES.load(name)()


def task_of(sample: Sample) -> BaseTask:
    """Return the task object of a sample."""
    return load(sample.task)


def asked_boxes(sample: Sample) -> tuple[Box, ...]:
    """Return the boxes that a right answer to a sample names."""
    return task_of(sample).boxes(sample)


def score_of(sample: Sample, answer: Answer) -> float:
    """Score an answer, 0..1, as rewards and benchmarks do: IoU, matched IoU, 1 where nothing fits and it says so, or
    how right and how specific a name is.

    Raises `RecordError`: a task whose answers are not scored one by one.
    """
    value = task_of(sample).score(answer, sample)
    if value is None:
        raise RecordError(f"sample {sample.id}: answers of task {sample.task!r} are not scored one by one")
    return value


@dataclass(frozen=True, slots=True)
class CompletionReader:
    """Reads completions of one checkpoint, whose `budget` decides the frame of its numbers.

    `opening` is what the chat template writes before them (`template_opening`); empty for texts that hold it already.
    """

    family: Family
    budget: Budget
    opening: str = ""

    def read(self, sample: Sample, text: str, *, tokens: int | None = None, truncated: bool = False) -> Completion:
        """Return the completion of a sample: the whole text, its answer, and how long it was."""
        frame = self.family.frame(sample.size, self.budget)
        text, answer = task_of(sample).read(text, self.opening, self.family, frame)
        return Completion(sample.id, text, answer, tokens=tokens, truncated=truncated)


def need_thought(sample: Sample) -> None:
    """Raise `RecordError` for a sample without the thought that prompt style `think` trains on."""
    if not sample.thought:
        raise RecordError(
            f"sample {sample.id}: field thought: style 'think' needs a thought; make the data with a teacher, or "
            "train with style 'direct'"
        )


def _untrained(sample: Sample) -> RecordError:
    return RecordError(f"sample {sample.id}: field task: samples of task {sample.task!r} are not trained on")
