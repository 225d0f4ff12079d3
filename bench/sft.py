"""What SFT without padding saves: TRL's SFTTrainer against ours, with the same rows and weights, in turns.

    python bench/sft.py [--rounds 3]

The mix is the pocket world's: reasoning, pointing at once, listing all things, and species' marks as text alone, in
equal parts. Stock is TRL unchanged: rows in random order, padded by its own collator, each image prepared every time.
Ours packs the rows of a batch. Both pass over all rows once per round, from the row to the gradients; the optimizer is
the same and left out. CPU seconds of one thread, after a warm-up round.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch

from bench.parts.clock import use_one_thread
from mllm.models.cpu_kernels import use_fast_kernels
from mllm.models.families import Convention, load
from mllm.pocket import pretraining_tasks
from mllm.pocket.model import build
from mllm.pocket.scene_store import training_scene
from mllm.training import trl_adapter
from mllm.training.engine.image_memory import remember_images
from mllm.training.engine.packing import PackedSFTTrainer
from mllm.training.trl_adapter import Exchange, Row

from trl import SFTConfig, SFTTrainer  # isort: skip

BATCH = 16
CONVENTION = Convention("pocket", "direct", load("pocket").budget)


@dataclass(frozen=True)
class Pass:
    """One pass over all rows: CPU seconds for batches and for losses with gradients; tokens and padded tokens."""

    prepare: float
    learn: float
    tokens: int
    read: int

    @property
    def rate(self) -> float:
        """Tokens of rows per second."""
        return self.tokens / (self.prepare + self.learn)


def mix(count: int, folder: Path) -> list[Row]:
    """Make rows of four kinds in equal parts, their images in `folder`."""
    rng, rows = random.Random(0), []
    for number in range(count):
        scene = training_scene(number, "bench", 2 + number // 4 % 3)
        task = (
            pretraining_tasks.reason_task(scene, 0, rng),
            pretraining_tasks.find_task(scene, 0, rng),
            pretraining_tasks.list_task(scene, 0),
            pretraining_tasks.recall_task(rng),
        )[number % 4]
        image = None if task.scene is None else folder / f"{number}.png"
        if image is not None:
            scene.image.save(image)
        exchange = Exchange(str(number), task.question, task.answer, image and image.name)
        rows.append(Row(exchange, image))
    return rows


def trainer(kind: type[SFTTrainer], rows: list[Row], folder: str, **options: Any) -> Any:
    """Return a trainer of the pocket model, with a frozen vision tower as in the pocket recipes."""
    model, processor = build(0)
    use_fast_kernels(model)
    model.model.visual.requires_grad_(False)
    if kind is PackedSFTTrainer:
        remember_images(processor)
    settings = SFTConfig(
        output_dir=folder, per_device_train_batch_size=BATCH, max_length=None, bf16=False, use_cpu=True,
        report_to="none", disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    made: Any = kind(
        model=model,
        args=settings,
        train_dataset=trl_adapter.dataset(rows, CONVENTION, answers=True),
        processing_class=processor,
        **options,
    )
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def once(made: Any) -> Pass:
    """Go over all rows once."""
    learn, tokens, read = 0.0, 0, 0
    began = time.process_time()
    for inputs in made.get_train_dataloader():
        started = time.process_time()
        tokens += int(inputs["attention_mask"].sum())
        read += inputs["attention_mask"].numel()
        made.model.zero_grad()
        made.compute_loss(made.model, dict(inputs), num_items_in_batch=torch.tensor(1000)).backward()
        learn += time.process_time() - started
    return Pass(time.process_time() - began - learn, learn, tokens, read)


def compare(count: int, rounds: int) -> dict[str, Any]:
    """Measure stock and ours; medians of `rounds`."""
    with tempfile.TemporaryDirectory() as folder:
        rows = mix(count, Path(folder))
        ways = {
            "stock": trainer(SFTTrainer, rows, folder),
            "ours": trainer(PackedSFTTrainer, rows, folder, packing=True),
        }
        passes: dict[str, list[Pass]] = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way, made in ways.items():
                found = once(made)
                if turn:
                    passes[way].append(found)
    return {
        way: {
            name: statistics.median(getattr(one, name) for one in several)
            for name in ("prepare", "learn", "tokens", "read", "rate")
        }
        for way, several in passes.items()
    }


def report(found: dict[str, Any]) -> str:
    """Format the comparison."""
    lines = [
        f"  {way:5}  {one['rate']:6.0f} tokens/s: {one['prepare']:6.2f} s preparing, {one['learn']:6.2f} s learning; "
        f"{one['tokens']:.0f} tokens of rows, {one['read']:.0f} with padding"
        for way, one in found.items()
    ]
    stock, ours = found["stock"], found["ours"]
    learn = stock["learn"] / ours["learn"]
    return "\n".join(
        ["SFT, pocket mix:", *lines, f"  {ours['rate'] / stock['rate']:.2f}x, learning alone {learn:.2f}x"]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=128)
    args = parser.parse_args()
    use_one_thread()
    print(report(compare(args.rows, args.rounds)))


if __name__ == "__main__":
    main()
