"""Tokens per second of the pocket model, training and generating."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.sft import PackedSFTTrainer, mix, once, trainer
from mllm.boxes import Frame
from mllm.inference.generate import generate
from mllm.inference.sampling import Sampling
from mllm.models.checkpoint import load
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.records import Sample


def training() -> dict[str, float]:
    """Measure tokens per second on one thread: packed SFT, and generation in batches of 32."""
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(PackedSFTTrainer, mix(64, Path(folder)), folder, packing=True)
        once(made)
        learned = once(made)
        model = load("pocket")
        scenes = [_sample(Path(folder), number) for number in range(32)]
        started = time.process_time()
        rows = generate(model, scenes, folder, Sampling(96, temperature=1.0))
        written = sum(row.tokens or 0 for row in rows)
        return {
            "pocket_sft_tokens_s": learned.rate,
            "pocket_rollout_tokens_s": written / (time.process_time() - started),
        }


def _sample(folder: Path, number: int) -> Sample:
    birds = species("bird")
    scene = world.make_scene(f"scale/{number}", "bird", [birds[(number + k) % len(birds)] for k in range(3)], "row")
    scene.image.save(folder / f"scene-{number}.png")
    thing = scene.things[0]
    return Sample(
        f"s{number}", "ground", f"scene-{number}.png", Frame(*scene.image.size), "bird", str(thing.name),
        f"Find the bird {thing.name}.", (thing.box,),
    )  # fmt: skip
