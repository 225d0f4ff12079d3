"""Ties are shared, and the softmax is the textbook's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.metrics.ranking import hit_share, log_softmax


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
    assert hit_share(scores, target, k) == pytest.approx(slow_hit_share([float(s) for s in scores], target, k))


def test_a_scorer_that_says_nothing_scores_chance() -> None:
    assert hit_share([0.3] * 5, 0) == 0.2
    assert hit_share([0.3, 0.3 + 1e-9, 0.1], 0) == 0.5
    assert hit_share([0.4, 0.3], 0) == 1 and hit_share([0.4, 0.3], 1) == 0


def test_the_softmax_stands_large_numbers() -> None:
    found = log_softmax([[1000.0, 999.0, -np.inf]])
    assert found[0, :2] == pytest.approx([-np.log1p(np.exp(-1)), -1 - np.log1p(np.exp(-1))])
    assert found[0, 2] == -np.inf
