"""Callbacks of every run: journal, progress line, complete checkpoints, an orderly stop."""

import json
import logging
import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from mllm.io.files import atomic_write
from mllm.io.jsonl import append_line, repair_jsonl
from mllm.models.families import Convention
from mllm.training import resume

logger = logging.getLogger(__name__)

JOURNAL = "log.jsonl"
_PROGRESS = (
    "loss", "reward", "eval/acc", "eval/iou", "eval/r1", "eval/precision", "mean_token_accuracy",
    "completions/mean_length", "grad_norm",
)  # fmt: skip
_REPEATED_SIGNAL = 5.0  # seconds in which a second Ctrl-C repeats the first (launchers forward it to their children)


class Journal(TrainerCallback):
    """Writes every log as a line of `log.jsonl` (`step`, `epoch`, `seconds`, then the numbers), and a progress line.

    NaN and infinity become null. When a run is resumed, lines of steps that will be repeated are dropped.
    """

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / JOURNAL
        self.started, self.first = time.monotonic(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock; drop lines after the checkpoint that is resumed."""
        self.started, self.first = time.monotonic(), state.global_step
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        repair_jsonl(self.path)
        lines = self.path.read_text(encoding="utf-8").split("\n") if self.path.is_file() else []
        lines = [line for line in lines if line] if state.global_step else []
        kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
        with atomic_write(self.path) as file:
            file.writelines(f"{line}\n" for line in kept)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write the line, and log the progress and the time left."""
        if not state.is_world_process_zero or not logs:
            return
        numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        numbers = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        numbers.pop("train_loss", None)  # covers the steps since the last stop only; each step's loss has its own line
        seconds = round(time.monotonic() - self.started, 2)
        row = {"step": state.global_step, "epoch": numbers.pop("epoch", None), "seconds": seconds, **numbers}
        append_line(self.path, json.dumps(row))
        progress = "  ".join(f"{key} {numbers[key]:.3g}" for key in _PROGRESS if numbers.get(key) is not None)
        if progress:
            done = state.global_step - self.first
            left = (state.max_steps - state.global_step) * seconds / done if done else math.nan
            eta = f"  ETA {clock(left)}" if done and left > 0 else ""
            logger.info("step %d/%d  %s%s", state.global_step, state.max_steps, progress, eta)


class Completeness(TrainerCallback):
    """Marks a checkpoint as complete once every process has saved its part, and only then removes older ones."""

    def __init__(self, convention: Convention) -> None:
        self.convention = convention

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for the other processes, write `fieldmark.json` into the checkpoint, and remove older checkpoints."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            resume.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.convention)
            rotate_checkpoints(args.output_dir, args.save_total_limit)


class OrderlyStop(TrainerCallback):
    """Ctrl-C (or SIGTERM) saves a checkpoint after the step and ends training; a later one ends it at once."""

    def __init__(self) -> None:
        self.requested: float | None = None  # when the stop was requested, in seconds of `time.monotonic`
        self.stopped = False
        self._old: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Install the signal handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._request)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop if any process received a signal: all have to stop at the same step."""
        requested = self.requested is not None
        if torch.distributed.is_initialized():
            flag = torch.tensor(int(requested), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            requested = bool(flag.item())
        self.stopped = requested and state.global_step < state.max_steps
        if self.stopped:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restore the signal handlers; log what is saved."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self.stopped:
            where = state.global_step, state.max_steps, args.output_dir
            logger.warning("stopped and saved at step %d of %d in %s", *where)

    def _request(self, number: int, frame: Any) -> None:
        """Note the request; a second one ends the program, unless it is a repetition of the first."""
        now = time.monotonic()
        if self.requested is not None and now - self.requested > _REPEATED_SIGNAL:
            raise KeyboardInterrupt
        self.requested = self.requested or now
        logger.warning("stopping after this step, then saving; Ctrl-C after %d seconds stops at once", _REPEATED_SIGNAL)


def clock(seconds: float) -> str:
    """Format a time as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
