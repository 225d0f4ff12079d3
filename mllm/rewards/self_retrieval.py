"""Whether a caption retrieves its own image among others, which makes captions specific."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mllm.distributed import gather
from mllm.errors import ConfigError
from mllm.metrics.stats import hit_share
from mllm.records import Sample, Score
from mllm.rewards import CaptionReward


@dataclass(frozen=True)
class Reward(CaptionReward):
    """With s_j = similarity of the caption and image j of the candidates, i its own, and k the scorer's logit scale:

    log:     R = max(log softmax_j(k s_j)[i], -floor)        -floor..0; No Detail Left Behind, DiscriTune (2304.01662)
    hit:     R = 1 if s_i is the largest, else 0             0..1; ties share
    margin:  R = s_i - max over the others of s_j            -2..2

    Candidates (`over`) are all images of the generation batch, over all processes. `batch`: every caption is scored.
    `bag_batch`: the same candidates, but only captions of images that came with their bag (`sample.bag`) are scored;
    single images that fill the batch are easy distractors and get None. `bag`: candidates are the bag alone. Also None
    if there is no other candidate.

    All processes have to score their parts of a batch together: images are gathered by a collective call.
    """

    scorer: str = "pocket"
    """`pocket`, a folder or a Hub name (mllm/models/encoders.py). Never judge with the same one."""
    form: Literal["log", "hit", "margin"] = "log"
    over: Literal["batch", "bag_batch", "bag"] = "batch"
    floor: float = 10.0
    late: bool = False
    pool: str = "mean"
    cache: str | None = None
    """Folder where the images' vectors are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.floor > 0:
            raise ConfigError(f"reward 'self_retrieval': floor must be above 0, got {self.floor!r}")

    @property
    def low(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Smallest possible value."""
        return {"log": -self.floor, "hit": 0.0, "margin": -2.0}[self.form]

    @property
    def high(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Largest possible value."""
        return {"log": 0.0, "hit": 1.0, "margin": 2.0}[self.form]

    def score_captions(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[Score]:
        """Score each caption; parts: log_p, hit, candidates, and cut (1 if the scorer truncated the caption)."""
        from mllm.models import encoders
        from mllm.models.similarity import similarity, softmax_scale

        encoder = encoders.load(self.scorer, late=self.late, pool=self.pool, cache=self.cache)
        mine: dict[str, set[str | None]] = {}  # an image may be in a bag and alone, or in several bags
        for sample in samples:
            mine.setdefault(sample.image, set()).add(sample.bag)
        vectors = encoder.images([Path(image) for image in mine])
        candidates: dict[str, tuple[set[str | None], np.ndarray]] = {}
        for image, bags_of_it, vector in gather(list(zip(mine, mine.values(), vectors, strict=True))):
            candidates.setdefault(image, (set(), vector))[0].update(bags_of_it)
        if not samples:
            return []
        texts = encoder.texts(captions)
        seen = np.stack([vector for _, vector in candidates.values()])
        similarities = similarity(texts, seen, encoder.pool)
        scale, place_of = softmax_scale(encoder), {image: number for number, image in enumerate(candidates)}
        bags = [bags_of_it for bags_of_it, _ in candidates.values()]
        result = [Score(None)] * len(samples)
        for row, sample in enumerate(samples):
            pool = self._pool(sample, bags)
            if len(pool) > 1:
                own = pool.index(place_of[sample.image])
                result[row] = self._score(similarities[row, pool], own, scale, bool(texts.cut[row]))
        return result

    def _pool(self, sample: Sample, bags: Sequence[set[str | None]]) -> list[int]:
        """Return the numbers of a caption's candidates; empty if it is not scored."""
        if self.over == "batch":
            return list(range(len(bags)))
        if sample.bag is None:
            return []
        mates = [number for number, bags_of_it in enumerate(bags) if sample.bag in bags_of_it]
        return mates if self.over == "bag" or len(mates) < 2 else list(range(len(bags)))

    def _score(self, similarity: np.ndarray, own: int, scale: float, cut: bool) -> Score:
        from scipy.special import log_softmax

        log_p = float(log_softmax(scale * np.asarray(similarity, np.float64))[own])
        hit = hit_share(similarity, own)
        margin = float(similarity[own] - np.delete(similarity, own).max())
        value = {"log": max(log_p, -self.floor), "hit": hit, "margin": margin}[self.form]
        parts = {"log_p": log_p, "hit": hit, "candidates": float(len(similarity)), "cut": float(cut)}
        return Score(min(max(value, self.low), self.high), parts)
