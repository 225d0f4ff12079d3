"""Describe an image: the whole text is the caption, in any prompt style. Captions are scored within bags."""

from mllm.boxes import Frame
from mllm.errors import RecordError
from mllm.models.families import Family
from mllm.prompting import answers
from mllm.prompting.prompts import suffix
from mllm.prompting.tasks import BaseTask
from mllm.records import Answer, Sample


class Task(BaseTask):
    """`Sample.captions` are the references; the first is the target."""

    has_boxes = False

    def user_text(self, sample: Sample, style: str) -> str:
        """Return the question alone: a caption is asked for in the same words in every style."""
        suffix(style)  # an unknown style is an error here too
        return sample.question

    def check(self, sample: Sample, style: str, *, target: bool = True) -> None:
        """Refuse a sample without a caption to learn."""
        if target and (not sample.captions or not sample.captions[0].strip()):
            raise RecordError(f"sample {sample.id}: field captions: at least one caption is needed to train on")

    def _target(self, sample: Sample, style: str, family: Family, frame: Frame) -> str:
        return sample.captions[0].strip()

    def read(self, text: str, opening: str, family: Family, frame: Frame) -> tuple[str, Answer]:
        """Read the text as it was written: an opening of the chat template is not part of a caption."""
        return text, answers.parse(text, family, frame)
