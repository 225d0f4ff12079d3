"""Whether the answer says rightly that the thing asked for is in the image, or that it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = [answer names a box] where the sample has boxes, [answer says absent] where it has none; 0 or 1.

    Where the box lies is not looked at: that is `iou`'s part, which in turn does not apply where there is no box. The
    counting is that of the no-target accuracy of generalised referring expressions (Liu et al. 2023, arXiv
    2306.00968). An answer that cannot be read claims neither and scores 0.
    """

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; part: rejected (absent things said to be absent) or missed (present ones)."""
        return [self._score(s, c) for s, c in zip(samples, completions, strict=True)]

    def _score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion."""
        absent = float(completion.answer.absent)
        if not sample.boxes:
            return Score(absent, {"rejected": absent})
        return Score(float(completion.answer.box is not None), {"missed": absent})
