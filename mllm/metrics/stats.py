"""Means with confidence intervals that resample images, because the cases of one image are not independent.

Intervals of one run are percentile bootstrap intervals (Efron & Tibshirani 1993, ch. 13) of `sum of values / number of
values`: an image with five questions weighs five times as much as one with a single question.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mllm.errors import FieldmarkError
from mllm.records import Sample

LEVEL = 0.95
RESAMPLES = 4000
TIE = 1e-6
"""Scores closer than this are equal: rounding alone moves a cosine by about 1e-7."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its interval; `low` and `high` are None with fewer than two images."""

    value: float
    low: float | None
    high: float | None
    samples: int
    groups: int
    level: float = LEVEL

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for a json file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of b - a over the same samples. `p` is two-sided; `wins` counts samples where b is above a."""

    value: float
    low: float | None
    high: float | None
    p: float
    samples: int
    groups: int
    wins: int
    losses: int
    level: float = LEVEL

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero; only then may an order be claimed."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return asdict(self) | {"clear": self.clear}


def mean(values: Sequence[float], groups: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the mean of `values` with a bootstrap interval over `groups` (the image of each value).

    Where every image's mean is 0, or every one is 1, the bootstrap interval would have no width. The result is then
    Wilson's score interval (1927) with one trial for each image.
    """
    sums, counts = _by_group(values, groups)
    value = float(sums.sum() / counts.sum())
    n, g = int(counts.sum()), len(sums)
    if g < 2:
        return Interval(value, None, None, n, g)
    if np.all(sums == 0) or np.all(sums == counts):
        low, high = wilson(g if value else 0, g)
        return Interval(value, low, high, n, g)
    low, high = _bootstrap(sums, counts, resamples, seed)
    return Interval(value, low, high, n, g)


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return Wilson's score interval for `hits` among `trials` > 0."""
    from scipy.stats import binomtest

    interval = binomtest(hits, trials).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def paired(
    a: Sequence[float], b: Sequence[float], groups: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Return the mean of b - a over the same samples in the same order, with an interval over images.

    Values are 0 to 1. Where all images differ by the same, see `_alike`. `p` comes from a sign-flip permutation test
    that swaps the two runs on whole images (Good 2005, ch. 3): (1 + permutations at least as far from zero) / (1 +
    permutations).
    """
    delta = _difference(a, b)
    sums, counts = _by_group(delta, groups)
    value = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        low, high = None, None
    else:
        low, high = _alike([sums / counts]) or _bootstrap(sums, counts, resamples, seed)
    p = _sign_flip(sums, resamples, seed)
    wins, losses = int((delta > 0).sum()), int((delta < 0).sum())
    return Difference(value, low, high, p, len(delta), len(sums), wins, losses)


def over_seeds(
    runs: Sequence[Sequence[float]], groups: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean over seeds and samples; `runs[s][i]` is sample i under seed s, `groups[i]` its image.

    Images and seeds are crossed. The image part of the variance comes from the bootstrap over images (of the mean
    over seeds), the seed part is s^2 / S, with s^2 the variance between seeds. A bootstrap over three seeds would give
    far too narrow an interval, so it is Student's t with the degrees of freedom of Satterthwaite (1946): close to the
    bootstrap's where seeds hardly matter, and that of S - 1 degrees where little else matters. With one seed there is
    no seed part, and the interval is that of a single run.
    """
    found = _over_seeds(runs, groups, resamples, seed)
    if found.low is None or found.high is None or not all(0 <= value <= 1 for run in runs for value in run):
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def paired_over_seeds(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], groups: Sequence[Hashable], *, seed: int = 0
) -> Interval:
    """Return the interval of b - a, run s of `a` with run s of `b` (same seed and samples); see `over_seeds`."""
    if len(a) != len(b):
        raise FieldmarkError(f"arms are paired by seed, but one has {len(a)} runs and the other {len(b)}")
    differences = [_difference(x, y).tolist() for x, y in zip(a, b, strict=True)]
    found = _over_seeds(differences, groups, RESAMPLES, seed)
    known = _alike([np.divide(*_by_group(run, groups)) for run in differences]) if found.groups > 1 else None
    return replace(found, low=known[0], high=known[1]) if known else found


def chance_floor(samples: Sequence[Sample]) -> float | None:
    """Return the score of a perfect localiser that points at a random thing; None unless all things are known.

    It is never right about a thing that is absent from the image.
    """
    if not samples or any(not sample.things for sample in samples):
        return None
    return sum(bool(sample.boxes) / len(sample.things) for sample in samples) / len(samples)


def hit_share(scores_N: Any, target: int, k: int = 1) -> float:
    """Return the probability that candidate `target` is among the first `k` with ties broken at random, 0..1.

    With a candidates above it and t equal to it, itself included, min(max(k - a, 0), t) of t orders hit. A scorer that
    gives every image the same number therefore scores k / N. It would score 1 if the first maximum won and the target
    came first, which is the rule of the published TrueMatch script.
    """
    scores_N = np.asarray(scores_N, dtype=np.float64)
    own = scores_N[target]
    above = int((scores_N > own + TIE).sum())
    equal = int((np.abs(scores_N - own) <= TIE).sum())
    return min(max(k - above, 0), equal) / equal


def _over_seeds(runs: Sequence[Sequence[float]], groups: Sequence[Hashable], resamples: int, seed: int) -> Interval:
    """Compute `over_seeds` for values of any range."""
    if not runs:
        raise FieldmarkError("no runs were given: pass one list of values per seed")
    if any(len(run) != len(groups) for run in runs):
        raise FieldmarkError(f"every seed must have a value for each of the {len(groups)} samples")
    tables = [_by_group(run, groups) for run in runs]
    sums, counts = np.stack([s for s, _ in tables]), tables[0][1]  # (seeds, images), (images,)
    n, g, seeds = len(groups), len(counts), len(runs)
    if seeds == 1 or np.all(sums == 0) or np.all(sums == counts):
        return mean(runs[0], groups, resamples=resamples, seed=seed)
    value = float(sums.sum() / (counts.sum() * seeds))
    if g < 2:
        return Interval(value, None, None, n, g)
    from scipy.stats import t

    rng = np.random.default_rng(seed)
    weights = rng.multinomial(g, np.full(g, 1 / g), size=resamples)  # how often each image was drawn
    by_image = float(((weights @ sums.mean(0)) / (weights @ counts)).var())
    by_seed = float((sums.sum(1) / counts.sum()).var(ddof=1)) / seeds
    total = by_image + by_seed
    degrees = total**2 / (by_image**2 / (g - 1) + by_seed**2 / (seeds - 1)) if total > 0 else 1.0
    half = float(t.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(total)
    return Interval(value, value - half, value + half, n, g)


def _alike(runs: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Return the interval of a mean difference that is the same on all images, None where it is not.

    `runs` are the images' differences, -1 to 1, of each seed. The bootstrap's interval would have no width. By Wilson's
    interval at least a share q of all images differs so, and the others may differ by anything from -1 to 1.
    """
    table = np.stack(runs)
    if np.ptp(table) > TIE:
        return None
    value, share = float(table.mean()), wilson(table.shape[1], table.shape[1])[0]
    return max(share * value - (1 - share), -1.0), min(share * value + (1 - share), 1.0)


def _difference(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    if len(a) != len(b):
        raise FieldmarkError(f"paired runs need the same samples, but one has {len(a)} and the other {len(b)}")
    return np.asarray(b, float) - np.asarray(a, float)


def _by_group(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of each group's values, groups in order of first appearance."""
    if len(values) == 0:
        raise FieldmarkError("there are no values to average")
    if len(values) != len(groups):
        raise FieldmarkError(f"{len(values)} values but {len(groups)} group names: one is needed for each value")
    table = np.asarray(values, float)
    if not np.isfinite(table).all():
        raise FieldmarkError(f"value {int(np.flatnonzero(~np.isfinite(table))[0])} is not a finite number")
    order: dict[Hashable, int] = {}
    index = np.array([order.setdefault(group, len(order)) for group in groups])
    return np.bincount(index, weights=table), np.bincount(index).astype(float)


def _bootstrap(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Return the percentile interval of sum(sums) / sum(counts), groups drawn with replacement."""
    from scipy.stats import bootstrap

    found = bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        confidence_level=LEVEL,
        n_resamples=resamples,
        batch=512,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _sign_flip(sums: np.ndarray, permutations: int, seed: int) -> float:
    """Return the two-sided p of sum(sums) under random signs; 1.0 where all sums are zero."""
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, size=(permutations, len(sums)), dtype=np.int8) * 2.0 - 1.0
    far = np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9
    return float((1 + far.sum()) / (1 + permutations))
