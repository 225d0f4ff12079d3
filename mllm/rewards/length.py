"""Whether a caption has a reasonable length: prevents long captions that please a retriever."""

from collections.abc import Sequence
from dataclasses import dataclass

from mllm.captions import words
from mllm.errors import ConfigError
from mllm.records import Sample, Score
from mllm.rewards import CaptionReward


@dataclass(frozen=True)
class Reward(CaptionReward):
    """With n words: R = 1 from `least` to `most`, n / least below, max(0, 1 - (n - most) / most) above; 0..1.

    Linear outside, so that captions that are all too long still differ. Other tasks: None.
    """

    least: int = 3
    most: int = 60

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigError(f"reward 'length': 1 <= least <= most is needed, got {self.least} and {self.most}")

    def score_captions(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[Score]:
        """Score each caption; part: words."""
        counts = [len(words(caption)) for caption in captions]
        values = [min(1.0, n / self.least, 1.0 - (n - self.most) / self.most) for n in counts]
        return [Score(max(0.0, value), {"words": float(n)}) for value, n in zip(values, counts, strict=True)]
