"""Whether a caption has a reasonable length: prevents long captions that please a retriever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mllm.captions import caption_of, words
from mllm.errors import ConfigError
from mllm.records import Completion, Sample, Score
from mllm.rewards import SampleReward


@dataclass(frozen=True)
class Reward(SampleReward):
    """With n words: R = 1 from `least` to `most`, n / least below, max(0, 1 - (n - most) / most) above; 0..1.

    Linear outside, so that captions that are all too long still differ. Other tasks: None.
    """

    task: ClassVar[str] = "caption"

    least: int = 3
    most: int = 60

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigError(f"reward 'length': 1 <= least <= most is needed, got {self.least} and {self.most}")

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; part: words."""
        if sample.task != "caption":
            return Score(None)
        n = len(words(caption_of(completion)))
        short, long = n / self.least, 1.0 - (n - self.most) / self.most
        return Score(max(0.0, min(1.0, short, long)), {"words": float(n)})
