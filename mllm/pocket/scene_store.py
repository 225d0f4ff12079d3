"""A store of rendered scenes: drawn once on all cores, kept as raw pixels on disk, read as needed."""

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from mllm import ctrl_c
from mllm.boxes import Box
from mllm.io.files import naming_full_disk, write_json
from mllm.pocket.pretraining_tasks import draw_looks
from mllm.pocket.species import DOMAINS, Marks
from mllm.pocket.world import TILE, Scene, WorldThing, crop, make_scene

COUNTS = (1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 6)
"""How many things a scene holds, drawn uniformly from this list."""
WIDE_SHARE = 8
"""One wide scene is drawn for so many others."""
CROP_BYTES = TILE * TILE * 3


def training_scene(number: int, split: str = "train", count: int | None = None) -> Scene:
    """Return scene ``number`` of the pre-training images; different splits never share a seed."""
    rng = random.Random(f"pretrain/{split}/{number}")
    domain = DOMAINS[number % len(DOMAINS)]
    looks = draw_looks(domain, count or rng.choice(COUNTS), rng)
    return make_scene(f"pretrain/{split}/{number}", domain, looks)


def wide_scene(number: int, split: str = "train") -> Scene:
    """Return wide scene ``number`` at full size: two to five things, too small to read once the image is shrunk."""
    rng = random.Random(f"pretrain/wide/{split}/{number}")
    domain = DOMAINS[number % len(DOMAINS)]
    return make_scene(f"pretrain/wide/{split}/{number}", domain, draw_looks(domain, rng.randint(2, 5), rng), "wide")


def shrunk(image: Image.Image) -> Image.Image:
    """Shrink a wide scene to what the model reads of it, as the image processor does."""
    return image.resize((image.width // 3, image.height // 3), Image.Resampling.BICUBIC)


def _render(job: tuple[int, bool]) -> tuple[bytes, dict[str, Any]]:
    number, wide = job
    scene = wide_scene(number) if wide else training_scene(number)
    image, crops = scene.image, b""
    if wide:
        rng = random.Random(f"pretrain/crops/{number}")
        crops = b"".join(crop(image, thing.box, rng.uniform(1.35, 1.75)).tobytes() for thing in scene.things)
        image = shrunk(image)
    things = [[*astuple(thing.look), *astuple(thing.box), thing.name] for thing in scene.things]
    return image.tobytes() + crops, {"size": image.size, "domain": scene.domain, "things": things}


class SceneStore:
    """The first ``count`` training scenes, then one wide scene for every ``WIDE_SHARE`` of them.

    Pixels are in one raw file, those of a wide scene followed by a crop of each thing; the annotations are in a JSON
    file beside it.
    """

    def __init__(self, folder: Path, count: int, workers: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        index_file, pixel_file = folder / f"scenes_{count}.json", folder / f"scenes_{count}.bin"
        jobs = [(number, False) for number in range(count)]
        jobs += [(number, True) for number in range(max(1, count // WIDE_SHARE))]
        if not index_file.is_file():
            index: list[dict[str, Any]] = []
            # Unlike multiprocessing.Pool, it raises if a worker cannot start.
            pools = ProcessPoolExecutor(workers, get_context("spawn"))
            with naming_full_disk(pixel_file), pixel_file.open("wb") as out, pools as pool:
                try:
                    with ctrl_c.kept_from_children():
                        drawn = pool.map(_render, jobs, chunksize=64)
                    for pixels, truth in track(drawn, "drawing scenes", total=len(jobs)):
                        index.append(truth | {"offset": out.tell()})
                        out.write(pixels)
                except BaseException:  # Ctrl-C, a full disk
                    for worker in active_children():  # the pool would let them finish
                        worker.terminate()
                    raise
            write_json(index_file, index)
        self._index: list[dict[str, Any]] = json.loads(index_file.read_text(encoding="utf-8"))
        self._pixels = np.memmap(pixel_file, dtype=np.uint8, mode="r")
        self.regular, self.wide = range(count), range(count, len(self._index))

    def __len__(self) -> int:
        return len(self._index)

    def pixels_HWC(self, number: int) -> np.ndarray:  # noqa: N802 - shape suffix
        """Return raw pixels, uint8, (height, width, 3)."""
        row = self._index[number]
        width, height = row["size"]
        return self._pixels[row["offset"] : row["offset"] + width * height * 3].reshape(height, width, 3)

    def crop_HWC(self, number: int, thing: int) -> np.ndarray:  # noqa: N802 - shape suffix
        """Return the crop of one thing of a wide scene, uint8, (96, 96, 3)."""
        row = self._index[number]
        start = row["offset"] + row["size"][0] * row["size"][1] * 3 + thing * CROP_BYTES
        return self._pixels[start : start + CROP_BYTES].reshape(TILE, TILE, 3)

    def scene(self, number: int) -> Scene:
        """Return a scene's annotations; its image is in ``pixels_HWC``."""
        row = self._index[number]
        things = tuple(
            WorldThing(row["domain"], Marks(*values[:4]), Box(*values[4:8]), values[8]) for values in row["things"]
        )
        return Scene(row["domain"], Image.new("RGB", (1, 1)), things)
