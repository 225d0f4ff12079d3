"""Answers of a model in training; each process generates its share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import Trainer
from trl.models.utils import unwrap_model_for_generation

from mllm.inference.generate import generate
from mllm.models.checkpoint import Checkpoint, Loaded
from mllm.records import Completion, Sample


def answers(
    trainer: Trainer, checkpoint: Checkpoint | Loaded, samples: Sequence[Sample], root: Path, **how: Any
) -> dict[str, Completion]:
    """Answer samples with the current weights; returns the same completions, by sample id, on every process.

    `how` goes to `mllm.inference.generate.generate`. A collective call: sharded weights are gathered, and all processes
    answer equally many samples (some twice), so that they make the same collective calls.
    """
    accelerator = trainer.accelerator
    world = accelerator.num_processes
    mine = share(samples, accelerator.process_index, world)
    with unwrap_model_for_generation(
        trainer.model_wrapped,  # pyright: ignore[reportArgumentType]
        accelerator,
        gather_deepspeed3_params=getattr(trainer.args, "ds3_gather_for_generation", True),
        gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,  # pyright: ignore
    ) as model:
        loaded = Loaded(model, checkpoint.processor, checkpoint.family, checkpoint.convention)
        completions = list(generate(loaded, mine, root, **how))
    return {row.sample_id: row for row in (gather_object(completions) if world > 1 else completions)}


def share(samples: Sequence[Sample], rank: int, world: int) -> list[Sample]:
    """Return the samples of one of `world` processes: equally many on each, none twice on the same process."""
    count = -(-len(samples) // world)
    return [samples[(rank + world * k) % len(samples)] for k in range(count)]
