"""Retrieval ranks with ties handled fairly, and log-probabilities of a softmax over candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

TIE = 1e-6
"""Scores closer than this are equal: rounding alone moves a cosine by about 1e-7."""


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


def log_softmax(logits: Any, axis: int = -1) -> np.ndarray:
    """Return the logarithm of the softmax along an axis, in float64; entries of -inf stay -inf."""
    logits = np.asarray(logits, dtype=np.float64)
    top = logits.max(axis=axis, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=axis, keepdims=True))
