"""Attention cut around a shared prompt, by itself; whole models are compared in test_prefix.py and test_packing.py."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mllm.training.engine import attention

PARTS = (4, 3, 2)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    module = SimpleNamespace(is_causal=True, training=False, num_key_value_groups=1)
    mask = attention.no_mask(query.device)
    return ALL_ATTENTION_FUNCTIONS["sdpa_in_rows"](module, query, key, value, mask, shared_parts=(PARTS,))[0]


def test_each_completion_sees_the_prompt_and_itself() -> None:
    """Against one dense softmax with the mask written out."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, sum(PARTS), 8)
    part = torch.repeat_interleave(torch.arange(len(PARTS)), torch.tensor(PARTS))
    seen = (part[None] == 0) | (part[:, None] == part[None])
    seen &= torch.ones(sum(PARTS), sum(PARTS), dtype=torch.bool).tril()
    weights = (query @ key.transpose(-1, -2) / 8**0.5).masked_fill(~seen, -torch.inf).softmax(-1)
    torch.testing.assert_close(attend(query, key, value), (weights @ value).transpose(1, 2))


def test_masks_are_kept_for_one_layout_alone() -> None:
    layout = ((4, 3, 2, 3), (5, 2))
    made = attention._masks(layout, torch.device("cpu"))
    assert attention._masks(layout, torch.device("cpu")) is made  # the next layer asks for the same
    assert {pair: tuple(mask.shape) for pair, mask in made.items()} == {
        (4, 3): (1, 1, 3, 7), (4, 2): (1, 1, 2, 6), (5, 2): (1, 1, 2, 7)
    }  # fmt: skip
    attention._masks(((9, 1),), torch.device("cpu"))
    assert attention._masks.cache_info().currsize == 1
