"""Preprocess each image for the vision tower once: TRL would in every epoch, and for each of a prompt's completions."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from transformers import BatchFeature

MEMORY_BYTES = 512 * 2**20


class ImageMemory:
    """Stands in for an image processor's `_preprocess`; results are looked up by image content and settings.

    Fits processors that return one block of `pixel_values` and one row of `image_grid_thw` per image, as those of the
    Qwen-VL families do.
    """

    def __init__(self, preprocess: Any, limit: int = MEMORY_BYTES) -> None:
        self.preprocess, self.limit = preprocess, limit
        self.size = self.hits = 0
        self._entries: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()

    def __call__(self, images: Sequence[Any], *, return_tensors: Any = None, **settings: Any) -> BatchFeature:
        """Preprocess decoded images; the result equals that of the original method."""
        settings_key = repr(sorted(settings.items()))
        entries = [self._entry(image, settings_key, settings) for image in images]
        data = {
            "pixel_values": np.concatenate([pixels for pixels, _ in entries]),
            "image_grid_thw": np.concatenate([grid for _, grid in entries]),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _entry(self, image: Any, settings_key: str, settings: dict[str, Any]) -> tuple[Any, Any]:
        """Return an image's patches and grid, from memory where they are known."""
        array = np.ascontiguousarray(image)
        key = (blake2b(array.data, digest_size=16).digest(), array.shape, array.dtype.str, settings_key)
        if key in self._entries:
            self._entries.move_to_end(key)
            self.hits += 1
            return self._entries[key]
        made = self.preprocess([image], return_tensors=None, **settings)
        entry = self._entries[key] = np.asarray(made["pixel_values"]), np.asarray(made["image_grid_thw"])
        self.size += entry[0].nbytes
        while self.size > self.limit and len(self._entries) > 1:
            _, (old, _) = self._entries.popitem(last=False)
            self.size -= old.nbytes
        return entry


def remember_images(processor: Any, limit: int = MEMORY_BYTES) -> ImageMemory | None:
    """Give a processor's image processor a memory of `limit` bytes; None where its output has another form.

    Called again, it returns the memory that is there.
    """
    image_processor = processor.image_processor
    stock = type(image_processor)
    if issubclass(stock, _WithMemory):
        return stock.memory
    if set(image_processor.model_input_names) != {"pixel_values", "image_grid_thw"}:
        return None
    memory = ImageMemory(partial(stock._preprocess, image_processor), limit)
    # A subclass with the stock name: an attribute of the instance would be written into the saved processor's file.
    image_processor.__class__ = type(stock.__name__, (_WithMemory, stock), {"memory": memory})
    return memory


class _WithMemory:
    """Base class that replaces `_preprocess` by a memory."""

    memory: ClassVar[ImageMemory]

    def _preprocess(self, images: Sequence[Any], **settings: Any) -> BatchFeature:
        return self.memory(images, **settings)
