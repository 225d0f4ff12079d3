"""Decides whether completions share their prompt, by counting multiply-adds in advance.

Sharing reads the prompt once, but masks the completions' attention, for which the stock causal kernel pays half: so
short prompts with long completions take the stock route.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ATTENTION_SLOWNESS = 2.0  # time of a multiply-add in masked attention, relative to one in a matrix product
MARGIN = 0.97  # packing is used if it costs less than this share of the stock route


@dataclass(frozen=True)
class Costs:
    """A model's costs in multiply-adds of a forward pass (the backward pass scales all of them alike).

    `per_token`: one token in all layers and the head. `per_pair`: one token attending to another, in all layers.
    `per_patch`: one patch in the vision tower.
    """

    per_token: float
    per_pair: float
    per_patch: float = 0.0


def of_model(config: Any, *, vision_parameters: int = 0) -> Costs:
    """Compute the costs from a model's configuration; text models like Llama (gated MLP, grouped keys)."""
    text = config.get_text_config()
    heads, width = text.num_attention_heads, text.hidden_size
    head = getattr(text, "head_dim", None) or width // heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    layer = width * head * (2 * heads + 2 * keys) + 3 * width * text.intermediate_size
    return Costs(
        per_token=text.num_hidden_layers * layer + text.vocab_size * width,
        per_pair=2 * text.num_hidden_layers * heads * head,
        per_patch=vision_parameters,
    )


def stock(costs: Costs, prompts: Sequence[int], completions: Sequence[int], patches: Sequence[int]) -> float:
    """Cost of the stock route: each completion with its prompt, padded to the longest (one entry per completion)."""
    wide = max(prompts) + max(completions)
    padded = min(prompts) < max(prompts) or min(completions) < max(completions)
    pairs = len(prompts) * wide * wide * (1.0 if padded else 0.5)
    return (
        len(prompts) * wide * costs.per_token
        + ATTENTION_SLOWNESS * pairs * costs.per_pair
        + sum(patches) * costs.per_patch / 3  # a frozen tower has no backward pass; a trained one weighs more
    )


def packed(costs: Costs, groups: Sequence[tuple[int, Sequence[int]]], patches: int) -> float:
    """Cost of a packed sequence of `groups` (tokens of the prompt, of its completions), with `patches` to encode."""
    tokens = sum(prompt - 1 + sum(lengths) for prompt, lengths in groups)
    pairs = sum(prompt**2 / 2 + sum(one * (prompt + one) for one in lengths) for prompt, lengths in groups)
    return tokens * costs.per_token + ATTENTION_SLOWNESS * pairs * costs.per_pair + patches * costs.per_patch / 3


def plan(
    costs: Costs,
    prompt_of: Sequence[int],
    prompts: Sequence[int],
    completions: Sequence[int],
    patches: Sequence[int] | None = None,
    needed: Sequence[int] | None = None,
) -> list[list[int]] | None:
    """Return groups of completions that share a prompt; None if the stock route is cheaper.

    Args:
        costs: the model's.
        prompt_of: for each completion the number of its prompt.
        prompts: tokens of each prompt.
        completions: tokens of each completion.
        patches: patches of each prompt's images that have to be encoded; None if they are encoded already.
        needed: the completions to pack, None for all; the stock route would read all.
    """
    members: dict[int, list[int]] = {}
    for index in range(len(prompt_of)) if needed is None else needed:
        members.setdefault(prompt_of[index], []).append(index)
    eager = patches or [0] * len(prompts)
    groups = [(prompts[number], [completions[b] for b in group]) for number, group in members.items()]
    packed_cost = packed(costs, groups, sum(eager[number] for number in members))
    stock_cost = stock(costs, [prompts[n] for n in prompt_of], completions, [eager[n] for n in prompt_of])
    return list(members.values()) if packed_cost < MARGIN * stock_cost else None
