"""Batches, steps and epochs as the trainers will count them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mllm.errors import ConfigError
from mllm.training.recipe import Recipe


@dataclass(frozen=True)
class Batches:
    """What one update learns from, and how many there will be.

    `rows` go into an update on all processes together. RL: `prompts` are asked at a time, `drawn` answers written to
    them, `updates_per_draw` made from those. `updates` is the number of optimizer steps of the whole run; `dropped` are
    the rows at an epoch's end that no batch takes (RL keeps only whole generation batches).
    """

    rows: int
    updates_per_epoch: int
    updates: int
    epochs: float
    prompts: int = 0
    drawn: int = 0
    updates_per_draw: float = 0.0
    dropped: int = 0

    @property
    def draws(self) -> int:
        """How many times answers are drawn."""
        return math.ceil(self.updates / self.updates_per_draw) if self.updates_per_draw else 0


def count(recipe: Recipe, rows: int) -> Batches:
    """Count the updates of a recipe on `rows` training rows.

    SFT: an epoch is ceil(ceil(rows / (per_device x processes)) / accumulation) updates (transformers' Trainer). RL: of
    the rows, whole batches of P = generation_batch_size / num_generations prompts are taken, each for
    steps_per_generation x num_iterations passes (TRL's RepeatSampler).

    Raises:
        ConfigError: RL with fewer rows than are asked at a time.
    """
    args = recipe.args
    accumulation = args.gradient_accumulation_steps
    whole = recipe.per_device * recipe.processes
    if recipe.kind == "sft":
        passes, prompts, drawn, per_draw, dropped = math.ceil(rows / whole), 0, 0, 0.0, 0
    else:
        drawn = args.generation_batch_size
        prompts = drawn // args.num_generations
        if rows < prompts:
            raise ConfigError(
                f"{recipe.file}: {prompts} prompts are asked at a time, and there are {rows} rows. "
                f"Lower per_device_train_batch_size or steps_per_generation, or bring more rows"
            )
        uses = args.steps_per_generation * args.num_iterations
        passes, dropped, per_draw = rows // prompts * uses, rows % prompts, uses / accumulation
    per_epoch = max(math.ceil(passes / accumulation), 1)
    updates = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    return Batches(whole * accumulation, per_epoch, updates, updates / per_epoch, prompts, drawn, per_draw, dropped)
