"""A store of rendered scenes: drawn once on all cores, kept as raw pixels on disk, read as needed."""

import json
import random
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from mllm.boxes import Box
from mllm.pocket.pretraining_tasks import draw_looks
from mllm.pocket.species import DOMAINS, Marks
from mllm.pocket.world import Scene, WorldThing, make_scene

COUNTS = (1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 6)
"""How many things a scene holds, drawn uniformly from this list."""


def training_scene(number: int, split: str = "train", count: int | None = None) -> Scene:
    """Return scene ``number`` of the pre-training images; different splits never share a seed."""
    rng = random.Random(f"pretrain/{split}/{number}")
    domain = DOMAINS[number % len(DOMAINS)]
    looks = draw_looks(domain, count or rng.choice(COUNTS), rng)
    return make_scene(f"pretrain/{split}/{number}", domain, looks)


def _render(number: int) -> tuple[bytes, dict[str, Any]]:
    scene = training_scene(number)
    things = [[*astuple(thing.look), *astuple(thing.box), thing.name] for thing in scene.things]
    return scene.image.tobytes(), {"size": scene.image.size, "domain": scene.domain, "things": things}


class SceneStore:
    """The first ``count`` training scenes: pixels in one raw file, their annotations in a JSON file beside it."""

    def __init__(self, folder: Path, count: int, workers: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        index_file, pixel_file = folder / f"scenes_{count}.json", folder / f"scenes_{count}.bin"
        if not index_file.is_file():
            index: list[dict[str, Any]] = []
            with pixel_file.open("wb") as out, get_context("spawn").Pool(workers) as pool:
                drawn = pool.imap(_render, range(count), chunksize=64)
                for pixels, truth in track(drawn, "drawing scenes", total=count):
                    index.append(truth | {"offset": out.tell()})
                    out.write(pixels)
            index_file.write_text(json.dumps(index), encoding="utf-8")
        self._index: list[dict[str, Any]] = json.loads(index_file.read_text(encoding="utf-8"))
        self._pixels = np.memmap(pixel_file, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self._index)

    def pixels_HWC(self, number: int) -> np.ndarray:  # noqa: N802 - shape suffix
        """Return raw pixels, uint8, (height, width, 3)."""
        row = self._index[number]
        width, height = row["size"]
        return self._pixels[row["offset"] : row["offset"] + width * height * 3].reshape(height, width, 3)

    def scene(self, number: int) -> Scene:
        """Return a scene's annotations; its image is in ``pixels_HWC``."""
        row = self._index[number]
        things = tuple(
            WorldThing(row["domain"], Marks(*values[:4]), Box(*values[4:8]), values[8]) for values in row["things"]
        )
        return Scene(row["domain"], Image.new("RGB", (1, 1)), things)
