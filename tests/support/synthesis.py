"""Small inputs of synthesis tests: one sample of each kind of question, and grounding data made as a user makes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.knowledge.cards import Cards
from mllm.pocket import world
from mllm.records import Sample, Thing

SPECIES = world.species("bird")
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
    return replace(sample, provenance={"kind": kind, "asked": list(CARDS[sample.entity])})
