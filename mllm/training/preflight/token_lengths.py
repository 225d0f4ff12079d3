"""How long the rows are, from the images' headers and the tokenizer; nothing is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllm.models.checkpoint import Checkpoint
from mllm.models.families import Budget, Family
from mllm.prompting import conversations
from mllm.records import Sample
from mllm.training.trl_adapter import Row

BARS = 8


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest image, prompt (image included), answer, and whole row; each is the longest of its kind.

    `counted` says that a tokenizer was there; else they are the most that the recipe lets pass.
    """

    visual: int
    prompt: int
    answer: int
    whole: int
    counted: bool


def visual(samples: Sequence[Sample], family: Family, budget: Budget) -> list[int]:
    """Return the visual tokens of each sample's image (its size has been compared with the file's header)."""
    return [family.visual_tokens(sample.size, budget) for sample in samples]


def prompts_and_wholes(
    samples: Sequence[Sample], checkpoint: Checkpoint, *, answers: bool, room: int
) -> tuple[list[int], list[int]]:
    """Count each row's prompt, and the row with its answer (SFT) or with room for the longest completion (RL)."""
    prompts = conversations.lengths(samples, checkpoint, answers=False)
    wholes = conversations.lengths(samples, checkpoint) if answers else [count + room for count in prompts]
    return prompts, wholes


def longest(rows: Sequence[Row], wholes: Sequence[int], count: int) -> tuple[int, list[str]]:
    """Return the tokens of the longest batch of `count` rows, padded to its longest, and the rows' ids."""
    order = sorted(range(len(wholes)), key=lambda k: (-wholes[k], rows[k].record.id))[:count]
    return count * wholes[order[0]], [rows[k].record.id for k in order]


def bound(visual_tokens: int, limit: int, room: int, *, answers: bool) -> Lengths:
    """Return the longest row that a recipe lets pass, where nothing can be counted."""
    visual_tokens = min(visual_tokens, limit - room)
    return Lengths(visual_tokens, limit - room, limit - visual_tokens if answers else room, limit, False)


def histogram(values: Sequence[int], width: int = 40) -> list[str]:
    """Draw how often which lengths occur: lines of `from-to  count  bar`, at most `BARS` of them."""
    low, high = min(values), max(values)
    step = max(-(-(high - low + 1) // BARS), 1)
    counts = [0] * (-(-(high - low + 1) // step))
    for value in values:
        counts[(value - low) // step] += 1
    ends = [(low + k * step, min(low + (k + 1) * step - 1, high)) for k in range(len(counts))]
    return [
        f"{a:>6}-{b:<6}{n:>7}  {'#' * -(-n * width // max(counts))}" for (a, b), n in zip(ends, counts, strict=True)
    ]
