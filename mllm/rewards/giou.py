"""Generalised IoU: a box that misses still learns which way the thing lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mllm.boxes import giou
from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward
from mllm.rewards.iou import asks_for_one


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = GIoU(answered box, true box) = IoU - (hull - union) / hull, -1..1; of several true boxes the best counts.

    `hull` is the area of the smallest box around both (Rezatofighi et al. 2019, arXiv 1902.09630). Visual-RFT
    (arXiv 2503.01785) adds 1 to it for reasoning segmentation, which group normalisation takes away again. An answer
    without a readable box scores -1, as if it were as far off as can be. Samples without a box and of task
    `ground_all`: None.
    """

    low: ClassVar[float] = -1.0

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; part: unread (1 when there was no box)."""
        return [self._score(s, c) for s, c in zip(samples, completions, strict=True)]

    def _score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion."""
        if not asks_for_one(sample):
            return Score(None)
        box = completion.answer.box
        if box is None:
            return Score(self.low, {"unread": 1.0})
        return Score(max(giou(box, true) for true in sample.boxes), {"unread": 0.0})
