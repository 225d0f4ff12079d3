"""How well a caption and its own image go together, by a dual encoder: CLIP-S. Says nothing of other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from mllm.captions import caption_of
from mllm.errors import ConfigError
from mllm.records import Completion, Sample, Score, read_jsonl
from mllm.rewards import BaseReward

WEIGHT = 2.5
"""Of Hessel et al. 2021 (arXiv 2104.08718): stretches the cosines that CLIP gives to about 0..1."""


@dataclass(frozen=True)
class Reward(BaseReward):
    """R = 2.5 * max(cos(caption, image), 0), 0..2.5; with `greedy`, R - R of the greedy caption, -2.5..2.5.

    CLIP-S (Hessel et al. 2021), a reward in Cho et al. 2022 (arXiv 2205.13115), who subtract the greedy caption's own
    (self-critical). In GRPO a group's mean does that already; the difference only shifts what is logged. Alone this
    reward ends in repetition and bad grammar: put `grammar` or `faithful` beside it.

    The image is `sample.image`, an absolute path or one relative to the working folder.
    """

    task: ClassVar[str] = "caption"

    scorer: str = "pocket"
    """`pocket`, a folder or a Hub name (mllm/models/encoders.py). Never judge with the same one."""
    late: bool = False
    pool: str = "mean"
    cache: str | None = None
    """Folder that keeps the images' vectors."""
    prefix: str = ""
    """Written before each caption; the published CLIP-S writes `A photo depicts `."""
    greedy: str | None = None
    """File of the base model's greedy captions (outputs.jsonl of a benchmark, by sample id)."""

    def __post_init__(self) -> None:
        """Refuse a file of greedy captions that is not there."""
        if self.greedy is not None and not Path(self.greedy).is_file():
            raise ConfigError(f"reward 'clip': greedy: {self.greedy}: no such file")

    @property
    def low(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Smallest value it can give."""
        return -WEIGHT if self.greedy else 0.0

    @property
    def high(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Largest value it can give."""
        return WEIGHT

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion; parts: cos, and cut (1 where the caption was too long for the scorer and was cut)."""
        from mllm.models import encoders

        pairs = list(zip(samples, completions, strict=True))
        asked = [place for place, (sample, _) in enumerate(pairs) if sample.task == "caption"]
        result = [Score(None)] * len(pairs)
        if not asked:
            return result
        encoder = encoders.load(self.scorer, late=self.late, pool=self.pool, cache=self.cache)
        images = encoder.images([Path(samples[place].image) for place in asked])
        texts = encoder.texts([self.prefix + caption_of(completions[place]) for place in asked])
        cosines = _own(encoders.similarity(texts, images, encoder.pool))
        minus = [0.0] * len(asked)
        if self.greedy is not None:
            known = _captions(self.greedy)
            missing = [samples[place].id for place in asked if samples[place].id not in known]
            if missing:
                raise ConfigError(f"reward 'clip': {self.greedy} holds no greedy caption of sample {missing[0]!r}")
            base = encoder.texts([self.prefix + known[samples[place].id] for place in asked])
            minus = [clip_s(cos) for cos in _own(encoders.similarity(base, images, encoder.pool))]
        for row, place in enumerate(asked):
            value = min(max(clip_s(cosines[row]) - minus[row], self.low), self.high)
            result[place] = Score(value, {"cos": cosines[row], "cut": float(texts.cut[row])})
        return result


def clip_s(cosine: float) -> float:
    """CLIP-S of a cosine."""
    return WEIGHT * max(cosine, 0.0)


def _own(similarity: Any) -> list[float]:
    """The diagonal: each caption with its own image."""
    return [float(row[place]) for place, row in enumerate(similarity)]


@lru_cache(maxsize=4)
def _captions(file: str) -> dict[str, str]:
    return {row.sample_id: caption_of(row) for row in read_jsonl(file, Completion, unique="sample_id")}
