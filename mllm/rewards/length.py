"""Whether a caption has a sensible length: a gate against the longest way to please a retriever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mllm.captions import caption_of, words
from mllm.errors import ConfigError
from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward


@dataclass(frozen=True)
class Reward(BaseReward):
    """With n words: R = 1 from `least` to `most`, n / least below, max(0, 1 - (n - most) / most) above; 0..1.

    Linear outside, so that a group of captions that are all too long still tells which is less so. Other tasks: None.
    """

    task: ClassVar[str] = "caption"

    least: int = 3
    most: int = 60

    def __post_init__(self) -> None:
        """Refuse bounds without meaning."""
        if not 1 <= self.least <= self.most:
            raise ConfigError(f"reward 'length': 1 <= least <= most is needed, got {self.least} and {self.most}")

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; part: words."""
        pairs = zip(samples, completions, strict=True)
        return [self._score(caption_of(done)) if sample.task == "caption" else Score(None) for sample, done in pairs]

    def _score(self, caption: str) -> Score:
        """Score one caption."""
        n = len(words(caption))
        short, long = n / self.least, 1.0 - (n - self.most) / self.most
        return Score(max(0.0, min(1.0, short, long)), {"words": float(n)})
