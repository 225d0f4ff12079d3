"""A key and value cache with room ahead: what a new token adds is written behind the rest, and the rest is not copied.

transformers' dynamic cache concatenates at each token, and so copies everything it holds once a token: of a long prompt
with many completions more bytes than attention itself reads.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

AHEAD = 256
"""Tokens of room that are made whenever there is none left."""


class _Room:
    """A tensor (..., tokens, width) that grows at its end."""

    def __init__(self) -> None:
        self._held: torch.Tensor | None = None
        self._shown: torch.Tensor | None = None

    def append(self, earlier: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        """Return `earlier` with `new` behind it. `earlier` is what was returned last, or anything else, which is then
        copied in."""
        start = 0 if earlier is None or not earlier.numel() else earlier.shape[-2]
        end = start + new.shape[-2]
        if self._held is None or earlier is not self._shown or end > self._held.shape[-2]:
            self._held = new.new_empty(*new.shape[:-2], end + AHEAD, new.shape[-1])
            if earlier is not None and start:
                self._held[..., :start, :] = earlier
        self._held[..., start:end, :] = new
        self._shown = self._held[..., :end, :]
        return self._shown


class RoomyLayer(DynamicLayer):
    """transformers' dynamic layer, but for `update`."""

    def __init__(self) -> None:
        super().__init__()
        self._keys, self._values = _Room(), _Room()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put new keys and values, (B, heads, new, width), behind the others; return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._keys.append(self.keys, key_states)
        self.values = self._values.append(self.values, value_states)
        return self.keys, self.values


def with_room(cache: Cache) -> Cache:
    """Give a cache's plain layers room ahead; layers of other kinds stay. Not for training: gradients do not pass."""
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            roomy = RoomyLayer()
            if layer.is_initialized and layer.keys is not None and layer.values is not None:
                roomy.lazy_initialization(layer.keys, layer.values)
                roomy.keys, roomy.values = layer.keys, layer.values
            cache.layers[place] = roomy
    return cache


def empty(config: Any) -> Cache:
    """An empty cache with room for a model of this configuration."""
    return with_room(DynamicCache(config=config.get_text_config()))
