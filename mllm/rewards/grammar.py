"""Whether a caption reads like one that a person wrote: an anchor for CLIP rewards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mllm.captions import caption_of
from mllm.records import Completion, Sample, Score
from mllm.rewards import BaseReward


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = p(human | caption), 0..1, by a text tower trained to distinguish captions from corrupted ones.

    Cho et al. 2022 (arXiv 2205.13115, eq. 6) add it to CLIP-S with weight 1 to 2, minus the greedy caption's own; in
    GRPO a group's mean does the latter. An empty caption scores 0; other tasks: None.
    """

    task: ClassVar[str] = "caption"

    head: str = "pocket"
    """`pocket`, or a folder written by `recipes/pretrain_grammar.py`."""

    def check(self, samples: Iterable[Sample]) -> None:
        """Refuse a folder without a head before training starts."""
        from mllm.models import grammar

        grammar.load(self.head)

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion."""
        from mllm.models import grammar

        pairs = list(zip(samples, completions, strict=True))
        places = [place for place, (sample, _) in enumerate(pairs) if sample.task == "caption"]
        result = [Score(None)] * len(pairs)
        if places:
            values = grammar.load(self.head).probabilities([caption_of(completions[place]) for place in places])
            for place, value in zip(places, values, strict=True):
                result[place] = Score(value)
        return result
