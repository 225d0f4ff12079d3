"""Checkpoints from which a run goes on exactly: saved at the right moments, whole, and with what the trainers forget.

Three things make a run that was killed end otherwise than one that was not. Answers drawn for several steps are lost
when a checkpoint falls between them; sums that a log has not closed are lost with it; and samplers that draw the next
epoch's order from a generator begin again with the first. Here saves wait for both ends, and orders come from
(seed, epoch) alone.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write
from mllm.models.families import CONVENTION_FILE

logger = logging.getLogger(__name__)

MEMORY_FILE = "memory.json"


class PerEpoch(Sampler[int]):
    """A sampler with a generator, whose order now depends on (seed, epoch) alone; the first epoch's stays."""

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
    """Lets a save wait until its step closes a generation window and a log. Put it last: it looks at what others asked.

    An orderly stop waits for the window alone, and so loses no answers; its last log may be cut in two.
    """

    def __init__(self, window: int = 1) -> None:
        self.window = window
        self._save = self._stop = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say when checkpoints come, where that is not when they were asked for."""
        every = math.lcm(self.window, _closes_log(args, state))
        if args.save_strategy == IntervalStrategy.STEPS and state.save_steps % every and state.is_world_process_zero:
            logger.info(
                "checkpoints are saved at multiples of %d steps, where answers are used up and logs are written", every
            )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        """Tell the sampler its epoch: accelerate does not reach it through all of its wrappers."""
        batches: Any = getattr(train_dataloader, "batch_sampler", None)
        while hasattr(batches, "batch_sampler"):
            batches = batches.batch_sampler
        sampler: Any = getattr(batches, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch_of(state))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep back what comes too early."""
        last = state.global_step >= state.max_steps
        self._save, self._stop = self._save or control.should_save, self._stop or control.should_training_stop
        used_up = last or state.global_step % self.window == 0
        logged = last or self._stop or state.global_step % _closes_log(args, state) == 0
        control.should_training_stop = self._stop and used_up
        control.should_save = self._save and used_up and logged
        if control.should_save:
            self._save = False


class Memory(TrainerCallback):
    """Keeps in the checkpoint what the trainers count and forget: tokens of SFT, logs that alarms look back on.

    `parts` has for each name how to read it and how to put it back. Put it before what marks a checkpoint complete.
    """

    def __init__(
        self, parts: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]], resume_from: Path | None = None
    ) -> None:
        self.parts, self.resume_from = parts, resume_from

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take it up again; a checkpoint from before this file existed has none."""
        path = None if self.resume_from is None else self.resume_from / MEMORY_FILE
        if path is not None and path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))
            for name, part in self.parts.items():
                if name in held:
                    part[1](held[name])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write it down."""
        if state.is_world_process_zero:
            with atomic_write(Path(args.output_dir) / f"checkpoint-{state.global_step}" / MEMORY_FILE) as file:
                json.dump({name: part[0]() for name, part in self.parts.items()}, file)


class WholeCheckpoints:
    """Mixed into a trainer: nothing old is removed before the new checkpoint is whole; a full disk is said as such.

    `write_card` writes the model card into a folder; None leaves it to TRL.
    """

    write_card: Callable[[Path], Any] | None = None

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save, and leave removing older ones to `Completeness`, which comes after all processes have saved."""
        trainer: Any = self
        limit, trainer.args.save_total_limit = trainer.args.save_total_limit, None
        folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        if trainer.is_world_process_zero():
            (folder / CONVENTION_FILE).unlink(missing_ok=True)  # of an older run of the same step
        try:
            with reported(folder):
                super()._save_checkpoint(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            trainer.args.save_total_limit = limit

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write our card where TRL would write its draft (checkpoints, and what is pushed to the Hub)."""
        trainer: Any = self
        if self.write_card is None:
            super().create_model_card(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        elif trainer.is_world_process_zero():
            self.write_card(Path(trainer.args.output_dir))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights as TRL does."""
        with reported(Path(output_dir or self.args.output_dir)):  # pyright: ignore[reportAttributeAccessIssue]
            super().save_model(output_dir, _internal_call)  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Turn a failed save into one sentence, and make room by removing the half of it, where it is a checkpoint's.

    Raises:
        FieldmarkError: the disk is full, the folder cannot be written in, or a file may not be that large.
    """
    try:
        yield
    except FieldmarkError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        if not isinstance(error, OSError | SafetensorError) and "file" not in str(error):
            raise  # torch.save says that its file failed; what else a RuntimeError may be is not about the disk
        if not (folder / CONVENTION_FILE).is_file() and folder.name.startswith("checkpoint-"):
            shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(folder if folder.is_dir() else folder.parent).free / 2**30
        raise FieldmarkError(
            f"{folder} could not be written ({error}); {free:.1f} GiB are free there. Earlier checkpoints are whole: "
            "make room, and the same command goes on from the last of them"
        ) from error


def _closes_log(args: Any, state: Any) -> int:
    """Every how many steps a log is written, where saves can wait for that; else 1.

    As flags these numbers are floats (a share of all steps where they are below 1, which the trainer has counted out).
    """
    by_steps = args.logging_strategy == IntervalStrategy.STEPS
    return int(state.logging_steps) if by_steps and 0 < state.logging_steps <= max(state.save_steps, 1) else 1
