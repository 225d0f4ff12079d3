"""How many completions of a prompt should share a row? Counted in multiply-adds, before anything is computed.

A packed row saves reading the prompt again, and pays for attention over everything in the row, masked or not (a dense
mask skips nothing). With long pictures and short answers one row for the whole group is best; with short prompts and
long answers fewer completions a row, or the stock route.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ATTENTION_SLOWNESS = 2.0
"""A multiply-add inside masked attention takes about this many times as long as one of a matrix product."""
MARGIN = 0.97
"""Packing has to cost less than this share of the stock route, else stock runs."""
MASK_BYTES = 5
"""Bytes a pair of the mask takes: the boolean itself and the numbers that CPU kernels make of it."""


@dataclass(frozen=True)
class Costs:
    """What a model pays, in multiply-adds of a forward pass (backward multiplies everything alike).

    `per_token`: of one token in all layers and the head. `per_pair`: of one token looking at another, all layers.
    `per_patch`: of one patch in the vision tower. `token_bytes`: memory a token keeps for the backward pass.
    """

    per_token: float
    per_pair: float
    per_patch: float = 0.0
    token_bytes: float = float("inf")


def of_model(config: Any, *, vision_parameters: int = 0, number_bytes: int = 4, checkpointing: bool = False) -> Costs:
    """Read the costs off a model's configuration.

    Args:
        config: the model's; text models of the Llama kind (gated MLP, grouped keys).
        vision_parameters: weights of the vision tower.
        number_bytes: bytes of an activation.
        checkpointing: activations inside layers are not kept.
    """
    text = config.get_text_config()
    heads, width = text.num_attention_heads, text.hidden_size
    head = getattr(text, "head_dim", None) or width // heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    layer = width * head * (2 * heads + 2 * keys) + 3 * width * text.intermediate_size
    kept = 2 * width if checkpointing else 8 * width + 2 * head * (heads + keys) + 4 * text.intermediate_size
    return Costs(
        per_token=text.num_hidden_layers * layer + text.vocab_size * width,
        per_pair=2 * text.num_hidden_layers * heads * head,
        per_patch=vision_parameters,
        token_bytes=text.num_hidden_layers * kept * number_bytes,
    )


def stock(costs: Costs, prompts: Sequence[int], completions: Sequence[int], patches: Sequence[int]) -> float:
    """Cost of the stock route: every completion with its prompt, all padded to the longest (one entry a completion)."""
    wide = max(prompts) + max(completions)
    padded = min(prompts) < max(prompts) or min(completions) < max(completions)
    pairs = len(prompts) * wide * wide * (1.0 if padded else 0.5)
    return (
        len(prompts) * wide * costs.per_token
        + ATTENTION_SLOWNESS * pairs * costs.per_pair
        + sum(patches) * costs.per_patch / 3  # a frozen tower has no backward pass; a trained one weighs more
    )


def packed(costs: Costs, lengths: Sequence[int], patches: int) -> float:
    """Cost of packed rows of these lengths, padded to the longest; `patches` are those that are encoded for them."""
    tokens, pairs = len(lengths) * max(lengths), len(lengths) * max(lengths) ** 2
    return tokens * costs.per_token + ATTENTION_SLOWNESS * pairs * costs.per_pair + patches * costs.per_patch / 3


def plan(
    costs: Costs,
    prompt_of: Sequence[int],
    prompts: Sequence[int],
    completions: Sequence[int],
    patches: Sequence[int] | None = None,
    wanted: Sequence[int] | None = None,
) -> list[list[int]] | None:
    """Choose which completions share a row; None where the stock route is cheaper.

    Args:
        costs: the model's.
        prompt_of: for each completion the number of its prompt.
        prompts: tokens of each prompt.
        completions: tokens of each completion.
        patches: patches of each prompt's pictures that have to be encoded, None where they are encoded already.
        wanted: the completions to pack, None for all; the stock route would read all.

    Among the packings that need no more memory than the stock route the cheapest is taken: rows of as equal numbers of
    completions as possible, in their order.
    """
    groups: dict[int, list[int]] = {}
    for index in range(len(prompt_of)) if wanted is None else wanted:
        groups.setdefault(prompt_of[index], []).append(index)
    eager = patches or [0] * len(prompts)
    best, rows = (
        MARGIN * stock(costs, [prompts[n] for n in prompt_of], completions, [eager[n] for n in prompt_of]),
        None,
    )
    wide = max(prompts[n] for n in prompt_of) + max(completions)
    stock_bytes = len(prompt_of) * (wide * costs.token_bytes + MASK_BYTES * wide * wide)
    for share in range(1, max(len(group) for group in groups.values()) + 1):
        candidate = [part for group in groups.values() for part in _parts(group, share)]
        lengths = [prompts[prompt_of[row[0]]] - 1 + sum(completions[b] for b in row) for row in candidate]
        cost = packed(costs, lengths, sum(eager[prompt_of[row[0]]] for row in candidate))
        tall = max(lengths)
        fits = len(candidate) * (tall * costs.token_bytes + MASK_BYTES * tall * tall) <= stock_bytes
        if cost < best and fits:
            best, rows = cost, candidate
    return rows


def _parts(group: Sequence[int], share: int) -> list[list[int]]:
    """Cut a group into the fewest parts of at most `share`, as equal as can be."""
    count = -(-len(group) // share)
    bounds = [len(group) * k // count for k in range(count + 1)]
    return [list(group[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
