"""How well a caption fits its own image, by a dual encoder: CLIP-S. Other images play no part."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from mllm.captions import caption_of
from mllm.errors import ConfigError
from mllm.io.jsonl import read_jsonl
from mllm.records import Completion, Sample, Score
from mllm.rewards import CaptionReward

WEIGHT = 2.5  # Hessel et al. 2021 (arXiv 2104.08718): scales CLIP's cosines to about 0..1


@dataclass(frozen=True)
class Reward(CaptionReward):
    """R = 2.5 * max(cos(caption, image), 0), 0..2.5; with `greedy`, R - R of the greedy caption, -2.5..2.5.

    CLIP-S (Hessel et al. 2021), a reward in Cho et al. 2022 (arXiv 2205.13115), who subtract the greedy caption's own;
    in GRPO that only shifts the logged value. Alone it leads to repetition and bad grammar: add `grammar`, `faithful`.
    The image is `sample.image`, an absolute path or one relative to the working folder.
    """

    high: ClassVar[float] = WEIGHT
    scorer: str = "pocket"
    """`pocket`, a folder or a Hub name (mllm/models/encoders.py). Never judge with the same one."""
    late: bool = False
    pool: str = "mean"
    cache: str | None = None
    """Folder where the images' vectors are kept."""
    prefix: str = ""
    """Put before each caption. The published CLIP-S has `prefix: "A photo depicts "` and `pool: truncate`."""
    greedy: str | None = None
    """File of the base model's greedy captions (outputs.jsonl of a benchmark, by sample id)."""

    def __post_init__(self) -> None:
        if self.greedy is not None and not Path(self.greedy).is_file():
            raise ConfigError(f"reward 'clip': greedy: {self.greedy}: no such file")

    @property
    def low(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Smallest possible value."""
        return -WEIGHT if self.greedy else 0.0

    def score_captions(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[Score]:
        """Score each caption; parts: cos, and cut (1 if the scorer truncated the caption)."""
        from mllm.models import encoders
        from mllm.models.similarity import similarity

        if not samples:
            return []
        encoder = encoders.load(self.scorer, late=self.late, pool=self.pool, cache=self.cache)
        images = encoder.images([Path(sample.image) for sample in samples])
        texts = encoder.texts([self.prefix + caption for caption in captions])
        cosines = np.diag(similarity(texts, images, encoder.pool)).tolist()  # each caption with its own image
        minus = [0.0] * len(samples)
        if self.greedy is not None:
            known = _captions(self.greedy)
            missing = [sample.id for sample in samples if sample.id not in known]
            if missing:
                raise ConfigError(f"reward 'clip': {self.greedy} has no greedy caption of sample {missing[0]!r}")
            base = encoder.texts([self.prefix + known[sample.id] for sample in samples])
            minus = [WEIGHT * max(cos, 0.0) for cos in np.diag(similarity(base, images, encoder.pool)).tolist()]
        apart = [WEIGHT * max(cos, 0.0) - base for cos, base in zip(cosines, minus, strict=True)]
        return [
            Score(min(max(value, self.low), self.high), {"cos": cos, "cut": float(cut)})
            for value, cos, cut in zip(apart, cosines, texts.cut, strict=True)
        ]


@lru_cache(maxsize=4)
def _captions(file: str) -> dict[str, str]:
    return {row.sample_id: caption_of(row) for row in read_jsonl(file, Completion, unique="sample_id")}
