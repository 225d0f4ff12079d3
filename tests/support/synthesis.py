"""Small inputs of synthesis tests: one sample of each kind of question, and grounding data made as a user makes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.data.near_duplicates import HASH_BITS
from mllm.io.images import open_image
from mllm.knowledge.cards import Cards
from mllm.pocket.species import species
from mllm.records import SPLITS, Sample, Thing, load_samples

SPECIES = species("bird")
CARDS = Cards({one.name: one.marks for one in SPECIES})


def make(out: Path, *flags: str) -> dict[str, Any]:
    """Run `data_synth/grounding.py` and return its manifest."""
    from data_synth import grounding

    grounding.main([*flags, "--out", str(out)])
    return json.loads((out / "manifest.json").read_text())


def sample_of(count: int, target: int, start: int = 0) -> Sample:
    """A sample of `count` bird species side by side, from species `start` on, that asks for thing `target`."""
    chosen = SPECIES[start : start + count]
    step = 1 / count
    things = tuple(
        Thing(one.name, Box(k * step + 0.01, 0.2, (k + 1) * step - 0.01, 0.8), one.marks)
        for k, one in enumerate(chosen)
    )
    wanted = things[target]
    return Sample("s", "ground", "a.png", Frame(288, 96), "bird", wanted.entity, "?", (wanted.box,), things)


def kind_of(sample: Sample, kind: str) -> Sample:
    """Ask a sample's image another question."""
    if kind == "absent":
        return replace(sample, entity=SPECIES[20].name, boxes=())
    if kind == "several":
        first, last = sample.things[0], sample.things[-1]
        things = (*sample.things[:-1], Thing(first.entity, last.box, first.marks))
        return replace(sample, task="ground_all", entity=first.entity, things=things, boxes=(first.box, last.box))
    return replace(sample, kind=kind, asked=CARDS[sample.entity])


def samples(out: Path) -> list[Sample]:
    """Read the samples of every side."""
    return [sample for side in SPLITS for sample in load_samples(out / f"{side}.jsonl")]


def no_look_alikes_between_sides(out: Path) -> None:
    """Cut every composite up again and compare the tiles of different sides, by hash and by colour."""
    tiles: list[tuple[str, Any, Any]] = []
    for row in samples(out):
        image = open_image(out / row.image)
        for cell in row.provenance["cells"]:
            tile = image.crop(tuple(cell))
            small = np.asarray(tile.resize((8, 8), Image.Resampling.BOX)).astype(int)
            tiles.append((row.split, imagehash.phash(tile), small))
    compared = 0
    for number, (side, code, small) in enumerate(tiles):
        for other, other_code, other_small in tiles[number + 1 :]:
            if side != other:
                compared += 1
                # Composites are scaled and compressed, which moves hashes: two bits less than the split's rule.
                same = code - other_code <= HASH_BITS - 2 and np.abs(small - other_small).mean() <= 10
                assert not same, f"a {side} and a {other} composite show the same photo"
    assert compared > 100
