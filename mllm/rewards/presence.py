"""Whether the answer is right about the thing being in the image or not."""

from dataclasses import dataclass

from mllm.prompting.tasks import task_of
from mllm.records import Completion, Sample, Score
from mllm.rewards import SampleReward


@dataclass(frozen=True)
class Reward(SampleReward):
    """R = [answer names a box] where the sample has boxes, [answer says absent] where it has none; 0 or 1.

    The position of the box does not matter: `iou` rewards it, and does not apply to samples without a box. Counted as
    the no-target accuracy of generalised referring expressions (Liu et al. 2023, arXiv 2306.00968). An answer that
    cannot be parsed scores 0. Samples of tasks without boxes: None.
    """

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; part: rejected (an absent thing called absent) or missed (a present one)."""
        if not task_of(sample).has_boxes:
            return Score(None)
        absent = float(completion.answer.absent)
        if not sample.boxes:
            return Score(absent, {"rejected": absent})
        return Score(float(completion.answer.box is not None), {"missed": absent})
