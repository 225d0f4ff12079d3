"""Mine look-alike bags from images with captions, in one command.

    python data_synth/bags.py --samples runs/pocket/captions/train.jsonl --out runs/pocket/bags
    python data_synth/bags.py --samples FILE --scorer openai/clip-vit-large-patch14 --sizes 2 --sizes 3 --upper 0.95

Every image becomes a vector (its own, plus that of its captions, unless --images-only); images that are alike,
but not too alike, are put into bags. Bags of one size and level are disjoint. The vectors are kept in --cache, so that
other sizes and thresholds take seconds.

Written: bags-SIZE-LEVEL.jsonl for every size and level, similarities.json (how alike the images are, to choose
thresholds by), and sheet.png, the first bags of each kind for people to look at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

from mllm.cli.programs import run_program
from mllm.data import bags
from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write
from mllm.io.images import open_image, save_image
from mllm.models import encoders
from mllm.records import Sample, image_path, load_samples, write_jsonl

console = Console(stderr=True)
TILE, CHUNK = 128, 256


def vectors(encoder: encoders.DualEncoder, samples: Sequence[Sample], file: Path, captions: bool) -> np.ndarray:
    """One vector a sample, of length 1."""
    seen, told = [], []
    for start in track(range(0, len(samples), CHUNK), "embedding", console=console):
        part = samples[start : start + CHUNK]
        seen.append(encoder.images([image_path(file, sample) for sample in part])[:, 0])
        if captions:
            told.append(np.stack([_mean_text(encoder, sample) for sample in part]))
    return bags.join(np.concatenate(seen), np.concatenate(told) if captions else None)


def _mean_text(encoder: encoders.DualEncoder, sample: Sample) -> np.ndarray:
    """Mean vector of a sample's captions, zero where it has none: its image then speaks alone."""
    if not sample.captions:
        return np.zeros(encoder.model.config.projection_dim, np.float32)
    return encoder.texts(sample.captions).vectors_SLD[:, 0].mean(0)


def similarities(found: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Quantiles of the similarity of random pairs and of nearest neighbours, over at most 2,000 images."""
    chosen = np.random.default_rng(seed).permutation(len(found))[:2000]
    table = found[chosen] @ found[chosen].T
    pairs = table[np.triu_indices(len(chosen), 1)]
    np.fill_diagonal(table, -1)
    shares = (0.05, 0.5, 0.95, 0.99)
    told = {f"random pairs, {share:.0%}": float(np.quantile(pairs, share)) for share in shares}
    return told | {f"nearest neighbours, {share:.0%}": float(np.quantile(table.max(1), share)) for share in shares}


def sheet(rows: Sequence[tuple[str, Sequence[Path]]]) -> Image.Image:
    """One line of images for each bag, with its name."""
    wide = max(len(files) for _, files in rows)
    canvas = Image.new("RGB", (wide * TILE, len(rows) * (TILE + 16)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (name, files) in enumerate(rows):
        draw.text((4, row * (TILE + 16) + 2), name, fill="black")
        for column, file in enumerate(files):
            small = open_image(file)
            small.thumbnail((TILE - 4, TILE - 4))
            canvas.paste(small, (column * TILE + 2, row * (TILE + 16) + 16))
    return canvas


def command(
    samples: Annotated[Path, typer.Option(help="samples file with images to caption")],
    out: Annotated[Path, typer.Option(help="folder of the bags")] = Path("runs/pocket/bags"),
    scorer: Annotated[str, typer.Option(help="encoder to mine with: pocket, a folder, a Hub name")] = "pocket",
    sizes: Annotated[list[int] | None, typer.Option(help="bag sizes (may be repeated) [2 3 5 7 10 15 20]")] = None,
    levels: Annotated[list[str] | None, typer.Option(help="easy, medium, hard (may be repeated) [hard]")] = None,
    lower: Annotated[float, typer.Option(help="least similarity of look-alikes")] = 0.5,
    upper: Annotated[float, typer.Option(help="from here on two images are the same one")] = 0.98,
    images_only: Annotated[bool, typer.Option(help="leave the captions out of the vectors")] = False,
    cache: Annotated[Path, typer.Option(help="folder that keeps the vectors")] = Path("runs/embeddings"),
    shown: Annotated[int, typer.Option(min=1, help="bags of each kind on the contact sheet")] = 3,
) -> None:
    """Mine look-alike bags."""
    rows = [sample for sample in load_samples(samples) if sample.task == "caption"]
    if not rows:
        raise FieldmarkError(f"{samples}: no sample has task 'caption'")
    sizes, levels = sizes or [2, 3, 5, 7, 10, 15, 20], levels or ["hard"]
    thresholds = {level: bags.band(lower, upper, level) for level in levels}
    encoder = encoders.load(scorer, cache=str(cache))
    found = vectors(encoder, rows, samples, not images_only)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "similarities.json") as file:
        json.dump(similarities(found), file, indent=1)
    lines: list[tuple[str, list[Path]]] = []
    near, sought = None, ""
    for level, size in product(levels, sizes):
        if level != sought:  # the search takes most of the time, and the largest bags' serves all of a level
            near, sought = bags.neighbours(found, bags.reach(max(sizes)), *thresholds[level]), level
        made = [
            bags.Bag(f"{size}-{level}-{number:06d}", tuple(rows[k].id for k in members), level, round(alike, 6))
            for number, (members, alike) in enumerate(bags.mine(found, size, *thresholds[level], near=near))
        ]
        write_jsonl(out / f"bags-{size}-{level}.jsonl", made)
        console.print(f"{len(made)} {level} bags of {size}", highlight=False)
        by_id = {sample.id: image_path(samples, sample) for sample in rows}
        lines += [(f"{bag.id}  {bag.similarity:.3f}", [by_id[k] for k in bag.members]) for bag in made[:shown]]
    if not lines:
        raise FieldmarkError(
            f"no bag could be made between {lower} and {upper}; see {out / 'similarities.json'} and lower --lower"
        )
    save_image(sheet(lines), out / "sheet.png")


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(command, argv)


if __name__ == "__main__":
    main()
