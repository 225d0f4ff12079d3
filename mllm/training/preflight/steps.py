"""Batches, steps and epochs as the trainers will count them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mllm.errors import ConfigError
from mllm.training.recipe import Recipe


@dataclass(frozen=True)
class StepCounts:
    """What one optimizer step (an update) is made of, and how many there will be.

    `rows` go into an update on all processes together; `updates` is the number of optimizer steps of the whole run. RL:
    `answers` are generated at a time, and `updates_per_generation` made from them; `dropped` are the rows at an epoch's
    end that fill no batch (RL keeps only complete generation batches).
    """

    rows: int
    updates_per_epoch: int
    updates: int
    epochs: float
    answers: int = 0
    updates_per_generation: float = 0.0
    dropped: int = 0

    @property
    def generations(self) -> int:
        """How many times answers are generated."""
        return math.ceil(self.updates / self.updates_per_generation) if self.updates_per_generation else 0


def count(recipe: Recipe, rows: int) -> StepCounts:
    """Count the updates of a recipe on `rows` training rows.

    SFT: an epoch is ceil(ceil(rows / (per_device x processes)) / accumulation) updates (transformers' Trainer). RL: the
    rows are taken in complete batches of P = generation_batch_size / num_generations prompts, each used for
    steps_per_generation x num_iterations passes (TRL's RepeatSampler).

    Raises:
        ConfigError: RL with fewer rows than prompts in one generation batch.
    """
    args = recipe.args
    accumulation = args.gradient_accumulation_steps
    per_pass = recipe.per_device * recipe.processes
    answers, per_generation, dropped = 0, 0.0, 0
    if recipe.kind == "sft":
        passes = math.ceil(rows / per_pass)
    else:
        answers = args.generation_batch_size
        prompts = answers // args.num_generations
        if rows < prompts:
            raise ConfigError(
                f"{recipe.file}: a generation batch has {prompts} prompts, and there are only {rows} rows. "
                f"Lower per_device_train_batch_size or steps_per_generation, or supply more rows"
            )
        uses = args.steps_per_generation * args.num_iterations
        passes, dropped, per_generation = rows // prompts * uses, rows % prompts, uses / accumulation
    per_epoch = max(math.ceil(passes / accumulation), 1)
    updates = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    epochs = updates / per_epoch
    return StepCounts(per_pass * accumulation, per_epoch, updates, epochs, answers, per_generation, dropped)
