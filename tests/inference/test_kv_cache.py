"""The preallocated cache holds what transformers' own holds, and copies it only when it is full."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from mllm.inference.kv_cache import TOKENS_AHEAD, PreallocatedLayer, allocated, preallocate, preallocated
from tests.training import tiny


def drawn(tokens: int, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 3, tokens, 4), torch.randn(rows, 3, tokens, 4)


def agree(one: Any, other: Any) -> None:
    assert one.get_seq_length() == other.get_seq_length()
    assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def test_it_holds_what_the_stock_layer_holds() -> None:
    torch.manual_seed(0)
    stock, ours = DynamicLayer(), PreallocatedLayer()
    for tokens in (7, 1, 1, TOKENS_AHEAD, 3):
        new = drawn(tokens)
        for one, other in zip(stock.update(*new), ours.update(*new), strict=True):
            assert torch.equal(one, other)
    agree(ours, stock)


def test_what_others_do_to_it_is_kept() -> None:
    torch.manual_seed(1)
    stock, ours = DynamicLayer(), PreallocatedLayer()
    new = drawn(6)
    for layer in (stock, ours):
        layer.update(*new)
        layer.batch_select_indices(torch.tensor([1, 1, 0]))
        layer.crop(-2)
    more = drawn(2, rows=3)
    for layer in (stock, ours):
        layer.update(*more)
    agree(ours, stock)


def test_a_token_is_written_in_place() -> None:
    ours = PreallocatedLayer()
    ours.update(*drawn(5))
    assert ours.keys is not None
    place = ours.keys.data_ptr()
    for _ in range(TOKENS_AHEAD):
        ours.update(*drawn(1))
    assert ours.keys.data_ptr() == place
    ours.update(*drawn(1))
    assert ours.keys.data_ptr() != place


def test_what_it_allocates_is_computed() -> None:
    ours, prompt = PreallocatedLayer(), 5
    ours.update(*drawn(prompt))
    for length in range(prompt, prompt + 3 * TOKENS_AHEAD):
        assert ours.keys is not None
        assert ours.keys.untyped_storage().nbytes() == 2 * 3 * 4 * 4 * allocated(prompt, length)
        ours.update(*drawn(1))


def test_layers_of_other_kinds_stay() -> None:
    sliding = DynamicSlidingWindowLayer(sliding_window=4)
    cache = DynamicCache()
    cache.layers = [DynamicLayer(), sliding]
    found = preallocate(cache).layers
    assert type(found[0]) is PreallocatedLayer and found[1] is sliding


def test_generation_is_the_same() -> None:
    model = tiny.build("qwen3")
    ids = torch.tensor([[0, 5, 6, 7], [9, 8, 7, 6]])
    inputs = {"input_ids": ids, "attention_mask": ids.ne(0).long()}
    config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=1)
    stock = model.generate(**inputs, generation_config=config)
    ours = model.generate(**inputs, generation_config=config, past_key_values=preallocated(model.config))
    assert ours.tolist() == stock.tolist()
