"""How well a set of boxes covers every instance: missing and extra boxes cost the same."""

from dataclasses import dataclass

from mllm.prompting.tasks.ground_all import is_exact, matched_iou
from mllm.records import Completion, Sample, Score
from mllm.rewards import SampleReward


@dataclass(frozen=True)
class Reward(SampleReward):
    """R = `mllm.prompting.tasks.ground_all.matched_iou`, 0..1.

    Applies to samples of task `ground_all` that have boxes; any other: None.
    """

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; parts: exact (every box matched at IoU 0.5, none too many), answered, unread."""
        if sample.task != "ground_all" or not sample.boxes:
            return Score(None)
        answer = completion.answer
        parts = {
            "exact": float(is_exact(answer, sample)),
            "answered": float(len(answer.numbers)),
            "unread": float(answer.box is None),
        }
        return Score(matched_iou(answer, sample), parts)
