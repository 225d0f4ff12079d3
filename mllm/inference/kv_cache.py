"""A preallocated key-value cache: new tokens are written in place; transformers' own copies all at each token."""

from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

TOKENS_AHEAD = 256
"""Free tokens that each allocation adds."""
ARGUMENT = "cache" if Version(transformers.__version__) >= Version("5.24") else "past_key_values"
"""Under which name `generate` takes a cache."""


def allocated(prompt: int, length: int) -> int:
    """Return the tokens that a row's cache has room for once `length` are in it, the first `prompt` read at once."""
    beyond = max(length - prompt - TOKENS_AHEAD, 0)
    return prompt + TOKENS_AHEAD + -(-beyond // (TOKENS_AHEAD + 1)) * (TOKENS_AHEAD + 1)


class _Buffer:
    """A tensor (..., tokens, width) that grows along its second last axis."""

    def __init__(self) -> None:
        self._allocated: torch.Tensor | None = None
        self._used: torch.Tensor | None = None

    def append(self, earlier: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        """Return `earlier` with `new` appended. `earlier` is copied unless it is what this method last returned."""
        start = 0 if earlier is None or not earlier.numel() else earlier.shape[-2]
        end = start + new.shape[-2]
        if self._allocated is None or earlier is not self._used or end > self._allocated.shape[-2]:
            self._allocated = new.new_empty(*new.shape[:-2], end + TOKENS_AHEAD, new.shape[-1])
            if earlier is not None and start:
                self._allocated[..., :start, :] = earlier
        self._allocated[..., start:end, :] = new
        self._used = self._allocated[..., :end, :]
        return self._used


class PreallocatedLayer(DynamicLayer):
    """transformers' dynamic layer with another `update`."""

    def __init__(self) -> None:
        super().__init__()
        self._keys, self._values = _Buffer(), _Buffer()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new keys and values, (B, heads, new tokens, width), and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._keys.append(self.keys, key_states)
        self.values = self._values.append(self.values, value_states)
        return self.keys, self.values


def preallocate(cache: Cache) -> Cache:
    """Replace the plain layers of a cache by preallocated ones. For inference only: gradients do not pass through."""
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            replacement = PreallocatedLayer()
            if layer.is_initialized and layer.keys is not None and layer.values is not None:
                replacement.lazy_initialization(layer.keys, layer.values)
                replacement.keys, replacement.values = layer.keys, layer.values
            cache.layers[index] = replacement
    return cache


def preallocated(config: Any) -> Cache:
    """Return an empty preallocated cache for a model with this configuration."""
    return preallocate(DynamicCache(config=config.get_text_config()))
