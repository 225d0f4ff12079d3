"""Steps as the trainers themselves count them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments
from trl.trainer.utils import RepeatSampler

from mllm.errors import ConfigError
from mllm.training.preflight.runtime import count_steps
from mllm.training.recipe import Recipe


def recipe(kind: Any, processes: int = 1, rows: int = 2, **args: Any) -> Recipe:
    plain = {"gradient_accumulation_steps": 1, "max_steps": -1, "num_train_epochs": 1.0, "num_iterations": 1}
    given = SimpleNamespace(**(plain | {"per_device_train_batch_size": rows * processes} | args))
    return Recipe(Path("x.yaml"), kind, None, given, True, processes)


def rl(rows: int, processes: int, group: int, steps: int, **args: Any) -> Recipe:
    drawn = rows * processes * steps
    args |= {"num_generations": group, "steps_per_generation": steps, "generation_batch_size": drawn}
    return recipe("rl", processes, rows, **args)


def test_karl_by_hand() -> None:
    """8 prompts x 4 answers a generation, two updates each; 2,056 rows: 257 generations per epoch (verl's steps)."""
    found = count_steps(rl(2, 8, 4, 2, num_train_epochs=2), 2056)
    assert (found.rows, found.answers) == (16, 32)
    assert (found.updates_per_epoch, found.updates, found.generations, found.dropped) == (514, 1028, 514, 0)


def test_deepperception_by_hand() -> None:
    """16 prompts an update, two epochs: the checkpoint-800 of 6,400 rows."""
    found = count_steps(rl(4, 8, 4, 2, gradient_accumulation_steps=2, num_train_epochs=2), 6400)
    assert (found.rows, found.answers, found.updates, found.generations) == (64, 64, 800, 800)


@pytest.mark.parametrize(
    ("count", "rows", "processes", "group", "steps", "uses"), [(50, 4, 2, 4, 2, 1), (21, 2, 1, 2, 4, 3)]
)
def test_rl_epochs_are_as_long_as_trl_s_sampler(
    count: int, rows: int, processes: int, group: int, steps: int, uses: int
) -> None:
    drawn = rows * processes * steps
    sampler = RepeatSampler(
        range(count), mini_repeat_count=group, batch_size=drawn // group, repeat_count=uses * steps, shuffle=False
    )
    found = count_steps(rl(rows, processes, group, steps, num_iterations=uses), count)
    assert found.updates_per_epoch == len(list(sampler)) / drawn
    assert found.dropped == count % (drawn // group)


@pytest.mark.ci
@pytest.mark.parametrize(("count", "rows", "accumulation", "epochs"), [(7, 2, 4, 1.5)])
def test_sft_steps_are_the_trainer_s(tmp_path: Path, count: int, rows: int, accumulation: int, epochs: float) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.one(x).mean()}

    args = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=rows, gradient_accumulation_steps=accumulation,
        num_train_epochs=epochs, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(Model(), args, train_dataset=[{"x": torch.ones(1)}] * count)
    trainer.train()
    made = recipe("sft", rows=rows, gradient_accumulation_steps=accumulation, num_train_epochs=epochs)
    assert count_steps(made, count).updates == trainer.state.max_steps == trainer.state.global_step


def test_sft_by_hand() -> None:
    """50 rows, 4 at a time: 13 batches, 5 updates of 3; and 3 rows make one update, however large it could be."""
    made = recipe("sft", rows=4, gradient_accumulation_steps=3, num_train_epochs=2.0)
    assert (count_steps(made, 50).updates_per_epoch, count_steps(made, 50).updates) == (5, 10)
    assert count_steps(recipe("sft", rows=8, gradient_accumulation_steps=8), 3).updates == 1
    assert count_steps(recipe("sft", processes=8, rows=2), 25_000).updates == 1563  # KARL's first stage


def test_max_steps_win_and_too_few_rows_are_refused() -> None:
    assert count_steps(recipe("sft", max_steps=7), 100).updates == 7
    with pytest.raises(ConfigError, match="a generation batch has 8 prompts, and there are only 7 rows"):
        count_steps(rl(2, 8, 4, 2), 7)
