"""How well a set of boxes covers every instance of what was asked for: misses and extra boxes cost alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllm.prompting.tasks.ground_all import is_exact, matched_iou
from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = `mllm.prompting.tasks.ground_all.matched_iou`, 0..1.

    Applies to samples of task `ground_all` that have boxes; any other: None.
    """

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; parts: exact (every box matched at IoU 0.5, none too many), answered, unread."""
        return [self._score(s, c) for s, c in zip(samples, completions, strict=True)]

    def _score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion."""
        if sample.task != "ground_all" or not sample.boxes:
            return Score(None)
        answer = completion.answer
        parts = {
            "exact": float(is_exact(answer, sample)),
            "answered": float(len(answer.numbers)),
            "unread": float(answer.box is None),
        }
        return Score(matched_iou(answer, sample), parts)
