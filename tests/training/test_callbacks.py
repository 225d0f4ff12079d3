"""Journal, completeness, orderly stop, no training on NaN."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.training.callbacks import Completeness, Journal, OrderlyStop
from mllm.training.checkpointing import SafeTrainer


def state(step: int, max_steps: int = 10) -> TrainerState:
    return TrainerState(global_step=step, max_steps=max_steps)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_journal_is_plain_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path)
    journal.on_train_begin(None, state(0), None)
    journal.started -= 5  # seconds ago: with no time gone there is nothing to estimate from
    with caplog.at_level("INFO", logger="mllm"):
        journal.on_log(None, state(2), None, logs={"loss": 1.5, "epoch": 0.2, "kl": math.nan, "note": "text"})
    (row,) = lines(tmp_path)
    assert (row["step"], row["epoch"], row["loss"], row["kl"]) == (2, 0.2, 1.5, None)
    assert "note" not in row
    assert "step 2/10" in caplog.text and "ETA" in caplog.text


def test_steps_that_will_be_taken_again_are_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.on_train_begin(None, state(0), None)
    for step in (1, 2, 3):
        journal.on_log(None, state(step), None, logs={"loss": float(step)})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    Journal(tmp_path).on_train_begin(None, state(2), None)
    assert [row["step"] for row in lines(tmp_path)] == [1, 2]
    Journal(tmp_path).on_train_begin(None, state(0), None)
    assert lines(tmp_path) == []


def test_a_saved_checkpoint_gets_its_convention(tmp_path: Path) -> None:
    convention = families.Convention("pocket", "think", families.load("pocket").budget)
    (tmp_path / "checkpoint-5").mkdir()
    args = SimpleNamespace(output_dir=str(tmp_path), save_total_limit=2)
    Completeness(convention).on_save(args, state(5), None)
    assert families.read_convention(tmp_path / "checkpoint-5") == convention


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_orderly_stop_saves_and_gives_the_signal_back(
    number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(number)
    stop, control = OrderlyStop(), TrainerControl()
    args = SimpleNamespace(output_dir=str(tmp_path), device=torch.device("cpu"))
    stop.on_train_begin(args, state(0), control)
    stop.on_step_end(args, state(3), control)
    assert not control.should_training_stop
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # a launcher's echo
    stop.on_step_end(args, state(4), control)
    assert stop.stopped and control.should_training_stop and control.should_save
    stop.on_train_end(args, state(4), control)
    assert signal.getsignal(number) is before
    assert f"stopped and saved at step 4 of 10 in {tmp_path}" in caplog.text


def test_impatience_stops_at_once(tmp_path: Path) -> None:
    stop = OrderlyStop()
    stop.on_train_begin(None, state(0), None)
    stop.requested = -100.0  # long ago
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    stop.on_train_end(None, state(1), None)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    class Stock:
        state = SimpleNamespace(global_step=6)

        def __init__(self, loss: float) -> None:
            self.loss = loss

        def training_step(self) -> torch.Tensor:
            return torch.tensor(self.loss)

    class Guarded(SafeTrainer, Stock):
        pass

    assert Guarded(0.5).training_step() == 0.5
    for wrong in (math.nan, math.inf):
        with pytest.raises(FieldmarkError, match="at step 7: stopped before it reached the weights"):
            Guarded(wrong).training_step()
