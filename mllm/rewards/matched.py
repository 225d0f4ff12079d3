"""How well a set of boxes covers every instance of what was asked for: misses and extra boxes cost alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllm.boxes import Box, iou
from mllm.prompting.prompts import ALL
from mllm.records import Answer, Completion, Sample, Score
from mllm.rewards import BaseReward
from mllm.rewards.iou import is_hit


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = sum of IoU over the best one-to-one matching / max(boxes answered, boxes true), 0..1.

    The matching is the one with the largest sum (Kuhn 1955, scipy's `linear_sum_assignment`); the denominator is
    Visual-RFT's (arXiv 2503.01785). A box written outside the image counts as answered and matches nothing. Applies
    to samples of task `ground_all` that have boxes; any other: None.
    """

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; parts: exact (every box matched at IoU 0.5, none too many), answered, unread."""
        return [self._score(s, c) for s, c in zip(samples, completions, strict=True)]

    def _score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion."""
        if sample.task != ALL or not sample.boxes:
            return Score(None)
        answer = completion.answer
        parts = {
            "exact": float(is_exact(answer, sample)),
            "answered": float(len(answer.numbers)),
            "unread": float(answer.box is None),
        }
        return Score(matched_iou(answer, sample), parts)


def matched_iou(answer: Answer, sample: Sample) -> float:
    """Return the reward's value for the boxes of an answer; 0 where it could not be read."""
    if answer.box is None or not sample.boxes:
        return 0.0
    pairs = match(answer.boxes, sample.boxes)
    return sum(overlap for _, _, overlap in pairs) / max(len(answer.numbers), len(sample.boxes))


def is_exact(answer: Answer, sample: Sample) -> bool:
    """Whether as many boxes were answered as there are, each matched at IoU 0.5."""
    if answer.box is None or not len(answer.numbers) == len(answer.boxes) == len(sample.boxes):
        return False
    return all(is_hit(overlap) for _, _, overlap in match(answer.boxes, sample.boxes))


def match(answered: Sequence[Box], true: Sequence[Box]) -> list[tuple[int, int, float]]:
    """Pair boxes one to one so that the sum of IoU is largest: (index answered, index true, IoU)."""
    from scipy.optimize import linear_sum_assignment

    overlaps = [[iou(a, b) for b in true] for a in answered]
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [(int(i), int(j), overlaps[i][j]) for i, j in zip(rows, columns, strict=True)]
