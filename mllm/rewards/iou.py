"""How well the answered box covers the true one. `eval/kvg_bench.py` takes its IoU and Acc@0.5 from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mllm.boxes import iou
from mllm.errors import ConfigError
from mllm.records import Answer, Completion, Sample, Score
from mllm.rewards import BaseReward

Mode = Literal["raw", "threshold", "power"]

HIT = 0.5
"""IoU from which an answer is right: Acc@0.5 counts the tie."""
_ROUNDING = 1e-9  # whole numbers that tie exactly come out a hair below 0.5 once they are shares of the picture


@dataclass(frozen=True)
class Reward(BaseReward):
    """A function of u = IoU(answered box, true box), 0..1; of several true boxes the best counts.

    raw:        R = u                         dense, as VLM-R1 (arXiv 2504.07615)
    threshold:  R = u if u > tau else 0       as DeepPerception (arXiv 2503.12797; tau 0.8 in its code)
    power:      R = u ** gamma                as Perception-R1 (arXiv 2504.07954; gamma 2)

    An answer that cannot be read scores 0 and is counted under the part `unread`. Samples without a box: None.
    """

    mode: Mode = "raw"
    tau: float = 0.5
    gamma: float = 2.0

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        if self.mode not in get_args(Mode):
            raise ConfigError(f"reward 'iou': mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if not 0 <= self.tau < 1:
            raise ConfigError(f"reward 'iou': tau must be from 0 to below 1, got {self.tau!r}")
        if not self.gamma > 0:
            raise ConfigError(f"reward 'iou': gamma must be above 0, got {self.gamma!r}")

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; parts: iou (u itself), acc (1 when u >= 0.5), unread (1 when there was no box)."""
        return [self._score(s, c) for s, c in zip(samples, completions, strict=True)]

    def _score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion."""
        if not sample.boxes:
            return Score(None)
        u = best_iou(completion.answer, sample)
        value = {"raw": u, "threshold": u if u > self.tau else 0.0, "power": u**self.gamma}[self.mode]
        unread = float(completion.answer.box is None)
        return Score(value, {"iou": u, "acc": float(is_hit(u)), "unread": unread})


def is_hit(u: float) -> bool:
    """Whether an IoU counts as right in Acc@0.5."""
    return u >= HIT - _ROUNDING


def best_iou(answer: Answer, sample: Sample) -> float:
    """IoU of the one box that counts with the nearest true box, 0..1; 0 when no box could be read."""
    box = answer.box
    return 0.0 if box is None else max((iou(box, true) for true in sample.boxes), default=0.0)
