"""Mine bags of look-alikes from images with captions, in one command.

    python data_synth/bags.py --samples runs/pocket/captions/train.jsonl --out runs/pocket/bags
    python data_synth/bags.py --samples FILE --scorer openai/clip-vit-large-patch14 --sizes 2 --sizes 3 --upper 0.95

Every image becomes a vector (its own plus that of its captions, unless --images-only); images that are similar, but not
too similar, are put into bags. Bags of one size and level are disjoint. The vectors are kept in --cache, so that other
sizes and thresholds take seconds.

Written: bags-SIZE-LEVEL.jsonl for every size and level, similarities.json (quantiles, to choose thresholds by), and
sheet.png, the first bags of each kind to look at.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

from mllm.cli.programs import Range, parse, run_program
from mllm.data import bags
from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write
from mllm.io.images import open_image, save_image
from mllm.io.jsonl import write_jsonl
from mllm.models import encoders
from mllm.records import Sample, image_path, load_samples

console = Console(stderr=True)
echo = partial(console.print, highlight=False)
TILE, TITLE, CHUNK = 128, 16, 256
SIZES = (2, 3, 5, 7, 10, 15, 20)


@dataclass(frozen=True)
class BagOptions:
    """What bags are mined from and how."""

    samples: Path
    """samples file with images to caption"""
    out: Path = Path("runs/pocket/bags")
    """output folder"""
    scorer: str = "pocket"
    """encoder to mine with: pocket, a folder or a Hub name"""
    sizes: tuple[int, ...] = ()
    """bag sizes (may be repeated); default: 2 3 5 7 10 15 20"""
    levels: tuple[str, ...] = ()
    """easy, medium or hard (may be repeated); default: hard"""
    lower: float = 0.5
    """least similarity of look-alikes"""
    upper: float = 0.98
    """similarity above which two images count as duplicates"""
    images_only: bool = False
    """leave the captions out of the vectors"""
    cache: Path = Path("runs/embeddings")
    """folder that keeps the vectors"""
    shown: Annotated[int, Range(1)] = 3
    """bags of each kind on the contact sheet"""


def vectors(encoder: encoders.DualEncoder, samples: Sequence[Sample], file: Path, captions: bool) -> np.ndarray:
    """Return one vector of length 1 per sample: (samples, dimensions)."""
    image_parts, text_parts = [], []
    for start in track(range(0, len(samples), CHUNK), "embedding", console=console):
        part = samples[start : start + CHUNK]
        image_parts.append(encoder.images([image_path(file, sample) for sample in part])[:, 0])
        if captions:
            text_parts.append(np.stack([_mean_text(encoder, sample) for sample in part]))
    return bags.join(np.concatenate(image_parts), np.concatenate(text_parts) if captions else None)


def _mean_text(encoder: encoders.DualEncoder, sample: Sample) -> np.ndarray:
    """Return the mean vector of a sample's captions, zero without captions: its image then counts alone."""
    if not sample.captions:
        return np.zeros(encoder.model.config.projection_dim, np.float32)
    return encoder.texts(sample.captions).vectors_SLD[:, 0].mean(0)


def similarities(found: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return quantiles of the similarity of random pairs and of nearest neighbours, over at most 2,000 images."""
    chosen = np.random.default_rng(seed).permutation(len(found))[:2000]
    table = found[chosen] @ found[chosen].T
    pairs = table[np.triu_indices(len(chosen), 1)]
    np.fill_diagonal(table, -1)
    kinds = {"random pairs": pairs, "nearest neighbours": table.max(1)}
    shares = (0.05, 0.5, 0.95, 0.99)
    return {f"{kind}, {share:.0%}": float(np.quantile(v, share)) for kind, v in kinds.items() for share in shares}


def sheet(rows: Sequence[tuple[str, Sequence[Path]]]) -> Image.Image:
    """Draw one line of images for each bag, with its name."""
    wide = max(len(files) for _, files in rows)
    canvas = Image.new("RGB", (wide * TILE, len(rows) * (TILE + TITLE)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (name, files) in enumerate(rows):
        top = row * (TILE + TITLE)
        draw.text((4, top + 2), name, fill="black")
        for column, file in enumerate(files):
            small = open_image(file)
            small.thumbnail((TILE - 4, TILE - 4))
            canvas.paste(small, (column * TILE + 2, top + TITLE))
    return canvas


def mine(options: BagOptions) -> None:
    """Mine bags of every level and size and write them."""
    rows = [sample for sample in load_samples(options.samples) if sample.task == "caption"]
    if not rows:
        raise FieldmarkError(f"{options.samples}: no sample has task 'caption'")
    sizes, levels = options.sizes or SIZES, options.levels or ("hard",)
    thresholds = {level: bags.band(options.lower, options.upper, level) for level in levels}
    encoder = encoders.load(options.scorer, cache=str(options.cache))
    found = vectors(encoder, rows, options.samples, not options.images_only)
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.out / "similarities.json") as file:
        json.dump(similarities(found), file, indent=1)
    files = {sample.id: image_path(options.samples, sample) for sample in rows}
    lines: list[tuple[str, list[Path]]] = []
    near, searched = None, ""
    for level, size in product(levels, sizes):
        if level != searched:  # the search takes most of the time; the largest bags' serves all sizes of a level
            near, searched = bags.neighbours(found, bags.reach(max(sizes)), *thresholds[level]), level
        made = [
            bags.Bag(f"{size}-{level}-{number:06d}", tuple(rows[k].id for k in members), level, round(similarity, 6))
            for number, (members, similarity) in enumerate(bags.mine(found, size, *thresholds[level], near=near))
        ]
        write_jsonl(options.out / f"bags-{size}-{level}.jsonl", made)
        echo(f"{len(made)} {level} bags of {size}")
        lines += [(f"{bag.id}  {bag.similarity:.3f}", [files[k] for k in bag.members]) for bag in made[: options.shown]]
    if not lines:
        raise FieldmarkError(
            f"no bag could be made between {options.lower} and {options.upper}; see "
            f"{options.out / 'similarities.json'} and lower --lower"
        )
    save_image(sheet(lines), options.out / "sheet.png")


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    mine(parse(BagOptions, argv))


if __name__ == "__main__":
    run_program(main)
