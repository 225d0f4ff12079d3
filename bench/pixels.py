"""What the pixel cache saves: preparing photos for the vision tower against reading them from the cache.

    python bench/pixels.py

Images of 1024 x 768 pixels under Qwen3-VL's image processor, at budgets of 256 and 1,024 visual tokens. CPU seconds
of one thread; "disk" reads with only the system's file cache in memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.parts.clock import cpu_seconds
from mllm.pocket.model import build_image_processor
from mllm.training.engine.pixel_cache import remember_pixels

IMAGES = 12


def main() -> None:
    """Measure and print a line for each budget."""
    torch.set_num_threads(1)
    noise = np.random.default_rng(0)
    images = [Image.fromarray(noise.integers(0, 255, (768, 1024, 3), dtype=np.uint8)) for _ in range(IMAGES)]
    for tokens in (256, 1024):
        size = {"shortest_edge": tokens * 1024, "longest_edge": tokens * 1024}
        with tempfile.TemporaryDirectory() as folder:
            stock, filling, reading = (build_image_processor() for _ in range(3))
            remember_pixels(filling, folder=Path(folder))
            spent = [_seconds(one, images, size) for one in (stock, filling)]
            remember_pixels(reading, folder=Path(folder))
            spent += [_seconds(reading, images, size), _seconds(reading, images, size)]
            held = sum(file.stat().st_size for file in Path(folder).iterdir()) / IMAGES / 2**20
        names = ("processed", "processed and cached", "from disk", "from memory")
        each = ", ".join(f"{name} {1000 * one / IMAGES:.1f} ms" for name, one in zip(names, spent, strict=True))
        print(f"{tokens} visual tokens: {each} per image; {held:.1f} MiB on disk")


def _seconds(processor: Any, images: list[Any], size: dict[str, int]) -> float:
    def work() -> None:
        for image in images:
            processor.image_processor(images=[image], size=size, return_tensors="pt")

    return cpu_seconds(work)


if __name__ == "__main__":
    main()
