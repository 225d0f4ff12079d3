"""The cache with room ahead holds what transformers' own holds, and copies it only when the room is used up."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from mllm.inference import kv_cache
from tests.training import tiny


def drawn(tokens: int, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 3, tokens, 4), torch.randn(rows, 3, tokens, 4)


def agree(one: Any, other: Any) -> None:
    assert one.get_seq_length() == other.get_seq_length()
    assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def test_it_holds_what_the_stock_layer_holds() -> None:
    torch.manual_seed(0)
    stock, roomy = DynamicLayer(), kv_cache.RoomyLayer()
    for tokens in (7, 1, 1, kv_cache.AHEAD, 3):
        new = drawn(tokens)
        for theirs, ours in zip(stock.update(*new), roomy.update(*new), strict=True):
            assert torch.equal(theirs, ours)
    agree(roomy, stock)


def test_what_others_do_to_it_is_kept() -> None:
    torch.manual_seed(1)
    stock, roomy = DynamicLayer(), kv_cache.RoomyLayer()
    new = drawn(6)
    for layer in (stock, roomy):
        layer.update(*new)
        layer.batch_select_indices(torch.tensor([1, 1, 0]))
        layer.crop(-2)
    more = drawn(2, rows=3)
    for layer in (stock, roomy):
        layer.update(*more)
    agree(roomy, stock)


def test_a_token_is_written_where_room_was_made() -> None:
    roomy = kv_cache.RoomyLayer()
    roomy.update(*drawn(5))
    assert roomy.keys is not None
    place = roomy.keys.data_ptr()
    for _ in range(kv_cache.AHEAD):
        roomy.update(*drawn(1))
    assert roomy.keys.data_ptr() == place
    roomy.update(*drawn(1))
    assert roomy.keys.data_ptr() != place


def test_layers_of_other_kinds_stay() -> None:
    sliding = DynamicSlidingWindowLayer(sliding_window=4)
    cache = DynamicCache()
    cache.layers = [DynamicLayer(), sliding]
    found = kv_cache.with_room(cache).layers
    assert type(found[0]) is kv_cache.RoomyLayer and found[1] is sliding


def test_generation_is_the_same() -> None:
    model = tiny.build("qwen3")
    ids = torch.tensor([[0, 5, 6, 7], [9, 8, 7, 6]])
    inputs = {"input_ids": ids, "attention_mask": ids.ne(0).long()}
    config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=1)
    stock = model.generate(**inputs, generation_config=config)
    ours = model.generate(**inputs, generation_config=config, past_key_values=kv_cache.empty(model.config))
    assert ours.tolist() == stock.tolist()
