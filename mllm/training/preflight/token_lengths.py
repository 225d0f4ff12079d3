"""How long the rows are in tokens: the longest of a run, the longest batch, and a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllm.training.trl_adapter import Row

BARS = 8


@dataclass(frozen=True)
class TokenLengths:
    """Tokens of the longest image, prompt (image included), answer, and complete row; each is a maximum of its own.

    `counted`: measured with a tokenizer. Otherwise they are the largest that the recipe allows.
    """

    visual: int
    prompt: int
    answer: int
    row: int
    counted: bool


def longest_batch(rows: Sequence[Row], lengths: Sequence[int], count: int) -> tuple[int, list[str]]:
    """Return the tokens of the longest possible batch of `count` rows, padding included, and the rows' ids."""
    order = sorted(range(len(lengths)), key=lambda k: (-lengths[k], rows[k].record.id))[:count]
    return count * lengths[order[0]], [rows[k].record.id for k in order]


def upper_bound(visual_tokens: int, max_length: int, max_new_tokens: int, *, answers: bool) -> TokenLengths:
    """Return the longest row that a recipe allows, where nothing can be counted."""
    prompt = max_length - max_new_tokens
    visual_tokens = min(visual_tokens, prompt)
    answer = max_length - visual_tokens if answers else max_new_tokens
    return TokenLengths(visual_tokens, prompt, answer, max_length, False)


def histogram(values: Sequence[int], width: int = 40) -> list[str]:
    """Draw a histogram of lengths: lines of `from-to  count  bar`, at most `BARS` of them."""
    low, high = min(values), max(values)
    step = max(-(-(high - low + 1) // BARS), 1)
    counts = [0] * (-(-(high - low + 1) // step))
    for value in values:
        counts[(value - low) // step] += 1
    ends = [(low + k * step, min(low + (k + 1) * step - 1, high)) for k in range(len(counts))]
    return [
        f"{a:>6}-{b:<6}{n:>7}  {'#' * -(-n * width // max(counts))}" for (a, b), n in zip(ends, counts, strict=True)
    ]
