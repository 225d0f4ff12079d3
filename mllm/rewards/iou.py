"""How well the answered box covers the true one."""

from dataclasses import dataclass
from typing import Literal

from mllm.errors import ConfigError
from mllm.prompting.tasks.ground import best_iou, is_above, is_hit
from mllm.records import Completion, Sample, Score
from mllm.rewards import SampleReward


@dataclass(frozen=True)
class Reward(SampleReward):
    """A function of u = IoU(answered box, true box), 0..1; of several true boxes the best counts.

    raw:        R = u                         dense, as VLM-R1 (arXiv 2504.07615)
    threshold:  R = u if u > tau else 0       as DeepPerception (arXiv 2503.12797); set tau: 0.8, as in its code
    power:      R = u ** gamma                as Perception-R1 (arXiv 2504.07954), squared: gamma 2
    half:       R = [u >= 0.5] / 2 + u / 2    as EGM (arXiv 2601.13633): half pass, half IoU
    hit:        R = [u >= 0.5]                Acc@0.5 itself; VLM-R1's first reward was [u > 0.5]

    The reward `mastery` weighs the IoU by the entity, and `matched` is for several boxes. An answer without a box that
    can be parsed scores 0 and counts in the part `unread`. Samples without a box (see `presence`), and of task
    `ground_all` (see `matched`): None.
    """

    mode: Literal["raw", "threshold", "power", "half", "hit"] = "raw"
    tau: float = 0.5
    gamma: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tau < 1:
            raise ConfigError(f"reward 'iou': tau must be from 0 to below 1, got {self.tau!r}")
        if not self.gamma > 0:
            raise ConfigError(f"reward 'iou': gamma must be above 0, got {self.gamma!r}")

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; parts: iou (u), acc (1 if u >= 0.5), unread (1 if there is no box)."""
        if not asks_for_one(sample):
            return Score(None)
        u = best_iou(completion.answer, sample)
        hit = float(is_hit(u))
        values = {
            "raw": u,
            "threshold": u if is_above(u, self.tau) else 0.0,
            "power": u**self.gamma,
            "half": (hit + u) / 2,
            "hit": hit,
        }
        return Score(values[self.mode], {"iou": u, "acc": hit, "unread": float(completion.answer.box is None)})


def asks_for_one(sample: Sample) -> bool:
    """Whether a sample's answer is a single box: the thing is in the image, and not every instance is asked for."""
    return bool(sample.boxes) and sample.task == "ground"
