"""Images made ready for the vision tower once, not at every use.

TRL processes each image anew at every epoch, and in GRPO twice for each of a prompt's answers. What comes out is the
same each time, so it is kept in memory, the least recently used dropped first, and where a folder is given on the disk
as well, for all processes, workers and later runs.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import transformers
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import BatchFeature

from mllm.errors import FieldmarkError

CACHE_BYTES = 512 * 2**20


class PixelFolder:
    """Processed images as files, `<key>.safetensors`, whole or not there; any number of processes may share one.

    Keys are made of an image's content and size, the processor's kind and settings, and transformers' version. Nothing
    is ever deleted: an image takes about 6 kB a patch of 16 x 16 pixels.
    """

    def __init__(self, path: Path, maker: str) -> None:
        self.path, self.maker = path, f"{maker} {transformers.__version__}"
        self.hits = 0
        path.mkdir(parents=True, exist_ok=True)

    def _file(self, key: Hashable) -> Path:
        return self.path / f"{blake2b(f'{self.maker} {key!r}'.encode(), digest_size=16).hexdigest()}.safetensors"

    def read(self, key: Hashable) -> tuple[Any, Any] | None:
        """Return patches and grid, None where nobody has written them."""
        file = self._file(key)
        try:
            found = load_file(file)
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            raise FieldmarkError(f"{file}: damaged ({error}); delete it, and it is made anew") from error
        self.hits += 1
        return found["pixel_values"], found["image_grid_thw"]

    def write(self, key: Hashable, pair: tuple[Any, Any]) -> None:
        """Write patches and grid aside, then put them in their place."""
        file = self._file(key)
        aside = file.with_name(f".{file.name}.{os.uname().nodename}-{os.getpid()}.tmp")
        save_file(
            {"pixel_values": np.ascontiguousarray(pair[0]), "image_grid_thw": np.ascontiguousarray(pair[1])}, aside
        )
        aside.replace(file)


class Remembered:
    """An image processor's `_preprocess` with a memory: images by content and settings -> patches and grid.

    Stands in for that one method (image arrays already decoded, settings as keywords), for processors that give one
    block of `pixel_values` and one row of `image_grid_thw` an image, as those of the Qwen-VL lines do.
    """

    def __init__(self, preprocess: Any, limit: int = CACHE_BYTES, folder: PixelFolder | None = None) -> None:
        self.preprocess, self.limit, self.folder = preprocess, limit, folder
        self.size = self.hits = 0
        self._held: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()

    def __call__(self, images: Sequence[Any], *, return_tensors: Any = None, **settings: Any) -> BatchFeature:
        """Process images; the result is that of the original method."""
        spelled = repr(sorted(settings.items(), key=lambda item: item[0]))
        found = [self._one(image, spelled, settings) for image in images]
        data = {
            "pixel_values": np.concatenate([pixels for pixels, _ in found]),
            "image_grid_thw": np.concatenate([grid for _, grid in found]),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _one(self, image: Any, spelled: str, settings: dict[str, Any]) -> tuple[Any, Any]:
        """Look one image up, or process it and remember."""
        array = np.ascontiguousarray(image)
        key = (blake2b(array.data, digest_size=16).digest(), array.shape, array.dtype.str, spelled)
        if key in self._held:
            self._held.move_to_end(key)
            self.hits += 1
            return self._held[key]
        pair = self.folder.read(key) if self.folder is not None else None
        if pair is None:
            made = self.preprocess([image], return_tensors=None, **settings)
            pair = np.asarray(made["pixel_values"]), np.asarray(made["image_grid_thw"])
            if self.folder is not None:
                self.folder.write(key, pair)
        self._held[key] = pair
        self.size += pair[0].nbytes
        while self.size > self.limit and len(self._held) > 1:
            _, (old, _) = self._held.popitem(last=False)
            self.size -= old.nbytes
        return pair


def remember_pixels(processor: Any, limit: int = CACHE_BYTES, folder: Path | None = None) -> Remembered | None:
    """Give a processor's image processor a memory of `limit` bytes, where it is one of those that this fits.

    With `folder` what is not in memory is looked for there, and put there. Returns the memory, None where it does not
    fit. Called again, it returns the memory that is there.
    """
    image_processor = processor.image_processor
    stock = type(image_processor)
    if issubclass(stock, _WithMemory):
        return stock.memory
    if set(image_processor.model_input_names) != {"pixel_values", "image_grid_thw"}:
        return None
    shelf = None if folder is None else PixelFolder(folder, stock.__name__)
    memory = Remembered(partial(stock._preprocess, image_processor), limit, shelf)
    # A class of its own, under the stock name: what an instance holds is written into the saved processor's file.
    image_processor.__class__ = type(stock.__name__, (_WithMemory, stock), {"memory": memory})
    return memory


class _WithMemory:
    """Mixed into an image processor's class: `_preprocess` asks the memory."""

    memory: ClassVar[Remembered]

    def _preprocess(self, images: Sequence[Any], **settings: Any) -> BatchFeature:
        return self.memory(images, **settings)
