"""Bootstrap over images and seeds: against a slow obvious version, against theory, and at the edges."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.metrics import stats
from mllm.records import Sample, Thing


def slow_bootstrap(values, groups, resamples, seed):
    """Draw images one at a time, pool their values, average; sorted means."""
    rng, table = random.Random(seed), {}
    for value, group in zip(values, groups, strict=True):
        table.setdefault(group, []).append(value)
    names = list(table)
    means = []
    for _ in range(resamples):
        pool = [v for _ in names for v in table[rng.choice(names)]]
        means.append(sum(pool) / len(pool))
    return np.quantile(means, [0.025, 0.975])


def made(images=40, per=4, seed=0):
    """Values that agree strongly inside an image."""
    rng = random.Random(seed)
    values, groups = [], []
    for k in range(images):
        level = rng.random()
        for _ in range(rng.randint(1, per)):
            values.append(float(rng.random() < level))
            groups.append(f"p{k}")
    return values, groups


def test_mean_agrees_with_the_slow_obvious_bootstrap():
    values, groups = made()
    fast = stats.mean(values, groups, resamples=4000)
    low, high = slow_bootstrap(values, groups, 4000, seed=1)
    assert fast.value == pytest.approx(sum(values) / len(values))
    assert fast.low == pytest.approx(low, abs=0.015) and fast.high == pytest.approx(high, abs=0.015)
    assert (fast.samples, fast.groups) == (len(values), 40)


def test_images_not_cases_are_resampled():
    once, groups = [float(k % 2) for k in range(30)], [f"p{k}" for k in range(30)]
    alone = stats.mean(once, groups)
    repeated = stats.mean(once * 9, groups * 9)  # the same images nine times add no information
    assert repeated.low == pytest.approx(alone.low, abs=0.02) and repeated.high == pytest.approx(alone.high, abs=0.02)


def test_the_interval_covers():
    rng, inside = np.random.default_rng(3), 0
    for trial in range(150):
        levels = rng.beta(2, 2, size=40)
        values = (rng.random((40, 3)) < levels[:, None]).astype(float).ravel()
        found = stats.mean(values, np.repeat(np.arange(40), 3).tolist(), resamples=400, seed=trial)
        inside += found.low <= 0.5 <= found.high
    assert 0.88 <= inside / 150 <= 0.99


def test_the_same_seed_gives_the_same_interval():
    values, groups = made()
    assert stats.mean(values, groups, seed=5) == stats.mean(values, groups, seed=5)


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_all_alike_is_not_certainty(hit):
    found = stats.mean([hit] * 20, list(range(20)))
    low, high = (0.0, 0.161) if hit == 0 else (0.839, 1.0)  # Wilson by hand: z²/(n+z²) = 3.84/23.84
    assert found.value == hit
    assert found.low == pytest.approx(low, abs=1e-3) and found.high == pytest.approx(high, abs=1e-3)


def test_one_image_has_no_interval():
    found = stats.mean([1.0, 0.0], ["p", "p"])
    assert (found.value, found.low, found.high, found.groups) == (0.5, None, None, 1)


def test_bad_values_are_refused():
    with pytest.raises(FieldmarkError, match="no values"):
        stats.mean([], [])
    with pytest.raises(FieldmarkError, match="one is needed"):
        stats.mean([1.0], ["a", "b"])
    with pytest.raises(FieldmarkError, match="value 1 is not a finite"):
        stats.mean([1.0, math.nan], ["a", "b"])
    with pytest.raises(FieldmarkError, match="same samples"):
        stats.paired([1.0], [1.0, 0.0], ["a", "b"])


def test_paired_differences_draw_images_not_samples():
    """Four copies of every sample, each on its own image, say nothing new: the interval stays as wide."""
    a, b, images = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0, 1.0], list("abcdef")
    once, copied = stats.paired(a, b, images), stats.paired(a * 4, b * 4, images * 4)
    assert (copied.low, copied.high, copied.p) == pytest.approx((once.low, once.high, once.p))
    assert (copied.samples, copied.groups) == (24, 6)


def test_paired_difference_sees_what_unpaired_cannot():
    rng = np.random.default_rng(0)
    hard = rng.random(120)
    a, b = (hard > 0.55).astype(float), (hard > 0.45).astype(float)  # b solves all a solves and a few more
    found = stats.paired(a.tolist(), b.tolist(), list(range(120)))
    assert found.value == pytest.approx(float((b - a).mean())) and found.clear and found.p < 0.01
    assert (found.wins, found.losses) == (int((b > a).sum()), 0)
    ia, ib = stats.mean(a.tolist(), list(range(120))), stats.mean(b.tolist(), list(range(120)))
    assert ib.low < ia.high  # two separate intervals overlap


def test_no_difference_is_not_claimed():
    values, groups = made()
    same = stats.paired(values, values, groups)
    assert (same.value, same.p, same.clear) == (0.0, 1.0, False)
    rng = np.random.default_rng(1)
    a, b = (rng.random((2, 60)) < 0.5).astype(float)
    assert not stats.paired(a.tolist(), b.tolist(), list(range(60))).clear


@pytest.mark.parametrize(
    ("before", "after", "images", "low", "high"),
    [
        (0.5, 0.5, 100, -0.037, 0.037),  # Wilson: at least 96.3 % of all images do not differ
        (0.0, 1.0, 3, -0.1230, 1.0),  # 43.85 % win at least, and the others may lose
        (1.0, 0.0, 3, -1.0, 0.1230),
        (0.0, 1.0, 20, 0.6777, 1.0),
        (0.2, 0.45, 10, 0.7225 * 0.25 - 0.2775, 0.7225 * 0.25 + 0.2775),
    ],
)
def test_equal_differences_do_not_give_an_interval_without_width(
    before: float, after: float, images: int, low: float, high: float
) -> None:
    groups = [image for image in range(images) for _ in range(2)]
    runs = [before] * len(groups), [after] * len(groups)
    found = stats.paired(*runs, groups)
    assert found.value == pytest.approx(after - before)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    seeds = stats.paired_over_seeds([runs[0]] * 2, [runs[1]] * 2, groups)
    assert (seeds.low, seeds.high) == (found.low, found.high)
    assert stats.paired(*runs, ["one"] * len(groups)).low is None
    assert stats.paired_over_seeds([runs[0]] * 2, [runs[1]] * 2, ["one"] * len(groups)).low is None


def test_sign_flip_by_hand():
    # three images, each one better by 1: of the 8 sign patterns 2 are as far out, p = 1/4
    assert stats.paired([0.0] * 3, [1.0] * 3, [0, 1, 2], resamples=20000).p == pytest.approx(0.25, abs=0.02)


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    base = rng.random(200)
    groups = list(range(200))
    alike = [(base > 0.5).astype(float)] * 3
    apart = [(base > cut).astype(float) for cut in (0.35, 0.5, 0.65)]
    narrow, wide = stats.over_seeds(alike, groups), stats.over_seeds(apart, groups)
    one = stats.mean(alike[0], groups)
    assert narrow.high - narrow.low == pytest.approx(one.high - one.low, abs=0.02)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert wide.value == pytest.approx(np.mean(apart))
    assert stats.over_seeds(apart[:1], groups) == stats.mean(apart[0], groups)


def test_seeds_alone_give_students_interval():
    # values = seed effect only: mean +- t(S - 1) * s / sqrt(S), by hand for S = 4: t = 3.182
    effects = np.array([0.2, 0.5, 0.9, 0.4])
    found = stats.over_seeds([np.full(30, e) for e in effects], list(range(30)))
    half = 3.182 * effects.std(ddof=1) / 2
    assert found.high == pytest.approx(0.5 + half, abs=1e-3) and found.low == pytest.approx(0.5 - half, abs=1e-3)


def test_images_alone_give_the_bootstraps_interval():
    values, groups = made(images=120)
    found, one = stats.over_seeds([values] * 3, groups), stats.mean(values, groups)
    assert found.low == pytest.approx(one.low, abs=0.01) and found.high == pytest.approx(one.high, abs=0.01)


@pytest.mark.parametrize("between_seeds", [0.0, 0.05, 0.2])
def test_three_seeds_cover(between_seeds):
    rng, inside = np.random.default_rng(0), 0
    for trial in range(200):
        images, seeds = rng.normal(0, 0.3, 60), rng.normal(0, between_seeds, 3)
        runs = [1 + images + one + rng.normal(0, 0.2, 60) for one in seeds]
        found = stats.over_seeds(runs, list(range(60)), resamples=200, seed=trial)
        inside += found.low <= 1 <= found.high
    assert 0.9 <= inside / 200 <= 1.0


def test_all_seeds_alike_is_not_certainty():
    found = stats.over_seeds([[1.0] * 20] * 3, list(range(20)))
    assert found.low == pytest.approx(0.839, abs=1e-3) and found.high == 1


def test_paired_over_seeds_cancels_what_is_shared():
    rng = np.random.default_rng(0)
    groups = list(range(100))
    a = [rng.random(100) for _ in range(3)]
    b = [run + 0.1 for run in a]
    found = stats.paired_over_seeds(a, b, groups)
    assert found.value == pytest.approx(0.1) and found.low is not None and found.high is not None
    assert found.low == pytest.approx(0.1 * 0.963 - 0.037, abs=1e-3) and found.high == pytest.approx(0.1333, abs=1e-3)
    with pytest.raises(FieldmarkError, match="paired by seed"):
        stats.paired_over_seeds(a, b[:2], groups)


def sample(things: int) -> Sample:
    boxes = [Box(0.1 * k, 0.1, 0.1 * k + 0.05, 0.2) for k in range(max(things, 1))]
    return Sample(
        id=f"s{things}",
        task="ground",
        image="x.png",
        size=Frame(10, 10),
        domain="bird",
        entity="e0",
        question="Find it.",
        boxes=(boxes[0],),
        things=tuple(Thing(f"e{k}", boxes[k]) for k in range(things)),
        split="test",
        group="g",
    )


def test_chance_floor():
    assert stats.chance_floor([sample(2), sample(4)]) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert stats.chance_floor([sample(2), sample(0)]) is None
    assert stats.chance_floor([]) is None


def slow_hit_share(scores: list[float], target: int, k: int) -> float:
    """Put equal scores in every possible order and count."""
    hits = trials = 0
    for order in itertools.permutations(range(len(scores))):
        ranked = sorted(order, key=lambda n: -scores[n])  # sorted keeps the order of equals
        hits += target in ranked[:k]
        trials += 1
    return hits / trials


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.integers(1, 4), st.data())
def test_equal_scores_share_their_places(scores: list[int], k: int, data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    assert stats.hit_share(scores, target, k) == pytest.approx(slow_hit_share([float(s) for s in scores], target, k))


def test_a_scorer_that_says_nothing_scores_chance() -> None:
    assert stats.hit_share([0.3] * 5, 0) == 0.2
    assert stats.hit_share([0.3, 0.3 + 1e-9, 0.1], 0) == 0.5
    assert stats.hit_share([0.4, 0.3], 0) == 1 and stats.hit_share([0.4, 0.3], 1) == 0
