"""Checkpoints that resume exactly: atomic, with the state that TRL's trainers drop, and at safe steps only.

A safe step uses up the generated completions and closes a log; the order of rows depends on (seed, epoch) alone.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from mllm.errors import FieldmarkError
from mllm.io.files import DISK_FULL, atomic_write, naming_full_disk
from mllm.models.families import CONVENTION_FILE

logger = logging.getLogger(__name__)


class PerEpoch(Sampler[int]):
    """Wraps a sampler with a generator so that its order depends on (seed, epoch) alone; epoch 0 is unchanged."""

    def __init__(self, inner: Any, seed: int) -> None:
        self.inner, self.seed, self.epoch = inner, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if getattr(self.inner, "generator", None) is not None:
            self.inner.generator.manual_seed(self.seed + self.epoch)
        yield from self.inner

    def __len__(self) -> int:
        return len(self.inner)


def epoch_of(state: Any) -> int:
    """Return the number of the epoch that begins, from 0; the trainer counts in fractions."""
    return int((state.epoch or 0.0) + 1e-6)


class Boundaries(TrainerCallback):
    """Delays a save until its step closes a generation window and a log.

    An orderly stop waits for the window alone, so that no completions are lost; its last log may cover fewer steps.
    The trainer has a `window`, the usual number of steps, and knows whether its completions are `used_up`: an epoch's
    last step may be shorter, so that steps alone do not tell.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._save = self._stop = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log when checkpoints are saved, if that differs from `save_steps`."""
        every = math.lcm(self.trainer.window, _closes_log(args, state))
        if args.save_strategy == IntervalStrategy.STEPS and state.save_steps % every and state.is_world_process_zero:
            logger.info(
                "checkpoints are saved at multiples of %d steps, where completions are used up and logs are written",
                every,
            )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        """Set the sampler's epoch: accelerate does not reach it through all of its wrappers."""
        batches: Any = getattr(train_dataloader, "batch_sampler", None)
        while hasattr(batches, "batch_sampler"):
            batches = batches.batch_sampler
        sampler: Any = getattr(batches, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch_of(state))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Hold back a save or a stop that comes too early."""
        last = state.global_step >= state.max_steps
        self._save, self._stop = self._save or control.should_save, self._stop or control.should_training_stop
        used_up = last or self.trainer.used_up
        logged = last or self._stop or state.global_step % _closes_log(args, state) == 0
        control.should_training_stop = self._stop and used_up
        control.should_save = self._save and used_up and logged
        self._save = self._save and not control.should_save


class RunState(TrainerCallback):
    """State that TRL's trainers do not save. Its owners register it; it is written into every checkpoint.

    Each part is a JSON value in `run_state_<name>.json`. Every process calls every `get`, so it may be collective.
    """

    def __init__(self, resume_from: Path | None = None) -> None:
        self.resume_from = resume_from
        self._parts: dict[str, tuple[Callable[[], Any], Callable[[Any], None], str | None]] = {}

    def register(
        self, name: str, get: Callable[[], Any], restore: Callable[[Any], None], *, missing: str | None = None
    ) -> None:
        """Save `get()` under `name` from now on, and pass it to `restore` when a run is resumed.

        `missing` is the error for a checkpoint without it, None if it is optional.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._parts:
            raise ValueError(f"run state {name!r} is registered twice")
        self._parts[name] = get, restore, missing

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restore every part from the checkpoint that is resumed."""
        if self.resume_from is None:
            return
        for name, (_get, restore, missing) in self._parts.items():
            file = self.resume_from / f"run_state_{name}.json"
            if file.is_file():
                restore(json.loads(file.read_text(encoding="utf-8")))
            elif missing is not None:
                raise FieldmarkError(f"{file}: no such file; {missing}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write every part into the checkpoint."""
        for name, (get, _restore, _missing) in self._parts.items():
            value = get()
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                with atomic_write(folder / f"run_state_{name}.json") as file:
                    json.dump(value, file)


class SafeTrainer:
    """Mixed into a TRL trainer: complete checkpoints, and no step on a loss that is NaN or infinite.

    `run_state` is where the trainer registers its token count; `write_card` writes the model card into a folder
    (None leaves that to TRL).
    """

    def __init__(
        self,
        *args: Any,
        run_state: RunState | None = None,
        write_card: Callable[[Path], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._write_card = write_card
        if run_state is not None:
            name, trainer = "_total_train_tokens", self
            run_state.register("tokens", lambda: getattr(trainer, name), lambda count: setattr(trainer, name, count))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take one micro-step.

        Raises:
            FieldmarkError: the loss is NaN or infinite; the weights were not changed.
        """
        loss = super().training_step(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if not torch.isfinite(loss).all():
            state = self.state  # pyright: ignore[reportAttributeAccessIssue]
            raise FieldmarkError(
                f"the loss is {loss.item()} at step {state.global_step + 1}: stopped before it reached the weights. "
                "Lower learning_rate or max_grad_norm, or train in float32 (dtype, bf16); the last checkpoint is sound"
            )
        return loss

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save, but leave removing older checkpoints to `Completeness`, which waits for all processes."""
        trainer: Any = self
        limit, trainer.args.save_total_limit = trainer.args.save_total_limit, None
        folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        if trainer.is_world_process_zero():
            (folder / CONVENTION_FILE).unlink(missing_ok=True)  # left by an earlier run's same step
        try:
            with clear_save_errors(folder):
                super()._save_checkpoint(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            trainer.args.save_total_limit = limit

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write our card where TRL would write its draft (checkpoints, and pushes to the Hub)."""
        trainer: Any = self
        if self._write_card is None:
            super().create_model_card(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        elif trainer.is_world_process_zero():
            self._write_card(Path(trainer.args.output_dir))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights as TRL does, with clear errors."""
        with clear_save_errors(Path(output_dir or self.args.output_dir)):  # pyright: ignore[reportAttributeAccessIssue]
            super().save_model(output_dir, _internal_call)  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def clear_save_errors(folder: Path) -> Iterator[None]:
    """Turn a failed save into a one-line error, and remove an incomplete checkpoint to free disk space.

    Raises:
        OSError: the disk is full; it names file or folder (`mllm.io.files.disk_full` makes the line).
        FieldmarkError: the folder is not writable.
    """
    try:
        with naming_full_disk(folder):
            yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "file" not in str(error):
            raise  # not about the disk
        if not (folder / CONVENTION_FILE).is_file() and folder.name.startswith("checkpoint-"):
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        raise FieldmarkError(
            f"{folder} could not be written ({error}). Earlier checkpoints are complete: make the folder writable, and "
            "the same command continues from the last of them"
        ) from error


def _closes_log(args: Any, state: Any) -> int:
    """Return the steps between logs if saves can wait for them, else 1.

    Given as flags these numbers are floats (below 1, they are a share of all steps that the trainer has converted).
    """
    by_steps = args.logging_strategy == IntervalStrategy.STEPS
    return int(state.logging_steps) if by_steps and 0 < state.logging_steps <= max(state.save_steps, 1) else 1
