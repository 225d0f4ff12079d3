"""Benchmark images in the training data are found, whole, recompressed and as a crop; others are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from mllm.boxes import Box, Frame
from mllm.data import contamination
from mllm.io.jsonl import write_jsonl
from mllm.records import Sample
from tests.support.command_line import fieldmark

WHOLE = Box(0, 0, 1, 1)


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A smooth random image: as different from another as photos are."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))


def samples(folder: Path, images: dict[str, Image.Image], split: str, box: Box = WHOLE) -> Path:
    folder.mkdir(exist_ok=True)
    rows = []
    for name, image in images.items():
        image.save(folder / name, quality=60)
        rows.append(
            Sample(
                id=name, task="ground", image=name, size=Frame(*image.size), domain="bird", entity="robin",
                question="Find it.", boxes=(box,), split=split,
            )
        )  # fmt: skip
    rows.append(replace(rows[0], id="again"))
    write_jsonl(folder / "s.jsonl", rows)
    return folder / "s.jsonl"


def test_leaks_are_found_and_others_are_not(tmp_path: Path) -> None:
    train = samples(tmp_path / "train", {f"{k}.png": photo(k) for k in range(6)}, "train")
    crop = photo(3).crop((20, 10, 140, 110))
    leaked = {"same.jpg": photo(1), "small.jpg": photo(2).resize((100, 75)), "other.jpg": photo(77)}
    test = samples(tmp_path / "test", leaked, "test")
    found = contamination.check([train], [test])
    assert [(one.name, other.name) for one, other in found.pairs] == [("same.jpg", "1.png"), ("small.jpg", "2.png")]
    assert (found.benchmark, found.training, found.rows) == (3, 6, 3)
    assert "2 of 3 benchmark images (3 rows) look like training images" in found.summary()
    boxed = samples(
        tmp_path / "boxed", {"3.png": photo(3)}, "train", Box.from_xyxy((20, 10, 140, 110), Frame(160, 120))
    )
    cut = samples(tmp_path / "cut", {"crop.png": crop}, "test")
    assert len(contamination.check([boxed], [cut]).pairs) == 1
    done = fieldmark(["doctor", "--train", str(train), "--benchmark", str(test)])
    assert done.exit_code == 1 and "same.jpg is like" in done.output
    clean = samples(tmp_path / "clean", {"x.png": photo(99)}, "test")
    done = fieldmark(["doctor", "--train", str(train), "--benchmark", str(clean)])
    assert done.exit_code == 0 and "none of 1 benchmark images" in done.output
