"""Pictures made ready for the vision tower once, not at every use.

TRL processes each picture anew at every epoch, and in GRPO twice for each of a prompt's answers. What comes out is the
same each time, so it is kept, the least recently used dropped first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from transformers import BatchFeature

CACHE_BYTES = 512 * 2**20


class Remembered:
    """An image processor's `_preprocess` with a memory: pictures by content and settings -> patches and grid.

    Stands in for that one method (picture arrays already decoded, settings as keywords), for processors that give one
    block of `pixel_values` and one row of `image_grid_thw` a picture, as those of the Qwen-VL lines do.
    """

    def __init__(self, preprocess: Any, limit: int = CACHE_BYTES) -> None:
        self.preprocess, self.limit = preprocess, limit
        self.size = self.hits = 0
        self._held: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()

    def __call__(self, images: Sequence[Any], *, return_tensors: Any = None, **settings: Any) -> BatchFeature:
        """Process pictures; the result is that of the original method."""
        spelled = repr(sorted(settings.items(), key=lambda item: item[0]))
        found = [self._one(image, spelled, settings) for image in images]
        data = {
            "pixel_values": np.concatenate([pixels for pixels, _ in found]),
            "image_grid_thw": np.concatenate([grid for _, grid in found]),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _one(self, image: Any, spelled: str, settings: dict[str, Any]) -> tuple[Any, Any]:
        """Look one picture up, or process it and remember."""
        array = np.ascontiguousarray(image)
        key = (blake2b(array.data, digest_size=16).digest(), array.shape, array.dtype.str, spelled)
        if key in self._held:
            self._held.move_to_end(key)
            self.hits += 1
            return self._held[key]
        made = self.preprocess([image], return_tensors=None, **settings)
        pair = np.asarray(made["pixel_values"]), np.asarray(made["image_grid_thw"])
        self._held[key] = pair
        self.size += pair[0].nbytes
        while self.size > self.limit and len(self._held) > 1:
            _, (old, _) = self._held.popitem(last=False)
            self.size -= old.nbytes
        return pair


def remember_pixels(processor: Any, limit: int = CACHE_BYTES) -> Remembered | None:
    """Give a processor's image processor a memory of `limit` bytes, where it is one of those that this fits.

    Returns the memory, None where it does not fit. Called again, it returns the memory that is there.
    """
    image_processor = processor.image_processor
    stock = type(image_processor)
    if issubclass(stock, _WithMemory):
        return stock.memory
    if set(image_processor.model_input_names) != {"pixel_values", "image_grid_thw"}:
        return None
    memory = Remembered(partial(stock._preprocess, image_processor), limit)
    # A class of its own, under the stock name: what an instance holds is written into the saved processor's file.
    image_processor.__class__ = type(stock.__name__, (_WithMemory, stock), {"memory": memory})
    return memory


class _WithMemory:
    """Mixed into an image processor's class: `_preprocess` asks the memory."""

    memory: ClassVar[Remembered]

    def _preprocess(self, images: Sequence[Any], **settings: Any) -> BatchFeature:
        return self.memory(images, **settings)
