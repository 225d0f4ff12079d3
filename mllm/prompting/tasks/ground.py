"""Find one thing: the answer is its box, or `none` where it is not in the image. Acc@0.5 counts it."""

import re

from mllm.boxes import Box, Frame, iou
from mllm.errors import RecordError
from mllm.models.families import Family
from mllm.prompting.tasks import BaseTask, need_thought
from mllm.records import Answer, Sample

ABSENT = "none"
"""What the answer says where the thing is not in the image (`mllm.prompting.answers` reads other ways to say it)."""
HIT = 0.5
"""IoU from which an answer is right: Acc@0.5 counts the tie."""
_ROUNDING = 1e-9  # whole numbers that tie exactly differ in the last bits once they are shares of the image
_ENDS_ON_A_THING = re.compile(r"(?:<obj:\d+>|\bSo \d+)\W*$")


def is_hit(overlap: float) -> bool:
    """Whether an IoU counts as right in Acc@0.5."""
    return overlap >= HIT - _ROUNDING


def is_above(overlap: float, tau: float) -> bool:
    """Whether an IoU is strictly above a threshold; whole numbers that tie exactly are not."""
    return overlap > tau + _ROUNDING


def best_iou(answer: Answer, sample: Sample) -> float:
    """IoU of the one box that counts with the nearest true box, 0..1; 0 where no box could be read."""
    box = answer.box
    return 0.0 if box is None else max((iou(box, true) for true in sample.boxes), default=0.0)


class Task(BaseTask):
    """`Sample.boxes` is the answer: the first box, or none where the thing is absent."""

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """Return the boxes that a right answer names."""
        return sample.boxes[:1]

    def check(self, sample: Sample, style: str, *, target: bool = True) -> None:
        """Refuse a sample whose boxes and things disagree, or without the thought that the style trains on.

        The thought of a sample without boxes must not end on a thing: it would conclude what the answer denies.
        """
        if not sample.boxes and any(thing.entity == sample.entity for thing in sample.things):
            raise RecordError(
                f"sample {sample.id}: field boxes: at least one box is needed, since {sample.entity!r} is among its "
                "things (a row without boxes says that the thing is not in the image)"
            )
        if style != "think" or not target:
            return
        need_thought(sample)
        if not sample.boxes and _ENDS_ON_A_THING.search(sample.thought or ""):
            raise RecordError(f"sample {sample.id}: field thought: it ends on a thing, but the sample has no box")

    def _target(self, sample: Sample, style: str, family: Family, frame: Frame) -> str:
        boxes = self.boxes(sample)
        answer = f"<answer>{family.write_boxes(boxes, frame) if boxes else ABSENT}</answer>"
        if style == "direct":
            return answer
        thought = family.write_thought(sample.thought or "", sample.things, frame)
        return f"<think>{thought}</think>{answer}"

    def score(self, answer: Answer, sample: Sample) -> float:
        """IoU with the nearest true box, 0..1; where nothing is right, 1 for an answer that says so."""
        return best_iou(answer, sample) if sample.boxes else float(answer.absent)

    def is_right(self, answer: Answer, sample: Sample) -> bool:
        """Whether the score reaches 0.5."""
        return is_hit(self.score(answer, sample))
