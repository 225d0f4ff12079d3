"""Whether a caption reads like one that a person wrote: an anchor for CLIP rewards."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mllm.records import Sample, Score
from mllm.rewards import CaptionReward


@dataclass(frozen=True)
class Reward(CaptionReward):
    """R = p(human | caption), 0..1, by a text tower trained to distinguish captions from corrupted ones.

    Cho et al. 2022 (arXiv 2205.13115, eq. 6) add it to CLIP-S with weight 1 to 2. An empty caption scores 0.
    """

    head: str = "pocket"
    """`pocket`, or a folder written by `recipes/pretrain_grammar.py`."""

    def check(self, samples: Iterable[Sample]) -> None:
        """Refuse a folder without a head before training starts."""
        from mllm.models import grammar

        grammar.load(self.head)

    def score_captions(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[Score]:
        """Score each caption."""
        from mllm.models import grammar

        return [Score(value) for value in grammar.load(self.head).probabilities(captions)] if captions else []
