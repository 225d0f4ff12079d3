"""Answers written and measured during training, and the best checkpoint by that: Acc@0.5, or R@1 of captions."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback

from mllm.config import Evaluate
from mllm.inference.sampling import Sampling
from mllm.io.files import atomic_write
from mllm.models.checkpoint import Checkpoint, Loaded
from mllm.models.families import write_convention
from mllm.records import Completion, Sample
from mllm.training import distributed_generate, validation_metrics
from mllm.training.run_card import Card

logger = logging.getLogger(__name__)

BEST = "best"
SCORE_FILE = "score.json"


class GeneratedEval(TrainerCallback):
    """Answers validation samples every so many steps, logs `eval/*`, and keeps the best weights in `best/`.

    Each process answers its share; all take part, since sharded weights have to be gathered. Greedy, so it draws no
    random numbers. Only a strictly better score replaces `best/`: of equal checkpoints the earlier stays.
    """

    def __init__(
        self,
        trainer: Trainer,
        checkpoint: Checkpoint | Loaded,
        samples: Sequence[Sample],
        root: Path,
        settings: Evaluate,
        card: Card | None = None,
    ) -> None:
        self.trainer, self.checkpoint = trainer, checkpoint
        self.samples, self.root, self.settings = samples, root, settings
        self.card = card
        self.score = validation_metrics.choose(samples, root, settings)
        self.folder = Path(trainer.args.output_dir or ".") / BEST
        self.fresh = self.folder.with_name(f"{BEST}.new")
        self.best = -1.0
        self.last: dict[str, float] = {}
        """What was measured last, of the weights as they then were."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the best of an older run when a new one starts; know it when one goes on."""
        found = [-1.0]
        if state.is_world_process_zero:
            if state.global_step == 0 and self.folder.exists():
                shutil.rmtree(self.folder)
            if state.global_step and not self.folder.exists() and (self.fresh / SCORE_FILE).is_file():
                self.fresh.rename(self.folder)  # killed between the two steps of changing places
            if (self.folder / SCORE_FILE).is_file():
                told = json.loads((self.folder / SCORE_FILE).read_text(encoding="utf-8"))
                found = [told.get(self.score.key, -1.0)]  # another number's best (`validation` may change) is none
        if self.trainer.accelerator.num_processes > 1:
            broadcast_object_list(found)  # the folder may lie on the first machine only
        self.best = float(found[0])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, log, and keep the weights if they are the best so far."""
        if state.global_step % self.settings.every and state.global_step < state.max_steps:
            return
        measured = self.last = self.measure()
        due = control.should_log
        # Trainer.log itself: the subclasses' versions would close their own running averages in the middle of a window.
        Trainer.log(self.trainer, dict(measured))
        control.should_log = due  # logging takes it back, and the step's own log would be lost
        if measured[self.score.key] > self.best:
            self.best = measured[self.score.key]
            self._keep(measured, state.global_step)

    def measure(self) -> dict[str, float]:
        """Answer the samples and score the answers; the same numbers on every process."""
        started, accelerator = time.monotonic(), self.trainer.accelerator
        every = distributed_generate.answers(
            self.trainer, self.checkpoint, self.samples, self.root,
            sampling=Sampling(self.settings.max_new_tokens), batch_size=self.settings.batch_size,
        )  # fmt: skip
        told: list[Any] = [self._score(every, started) if accelerator.is_main_process else None]
        if accelerator.num_processes > 1:
            broadcast_object_list(told)
        return told[0]

    def _score(self, done: Mapping[str, Completion], started: float) -> dict[str, float]:
        """Score what all processes wrote."""
        said = [done[sample.id] for sample in self.samples]
        return {
            **self.score(self.samples, said),
            "eval/tokens": sum(one.tokens or 0 for one in said) / len(said),
            "eval/samples": len(said),
            "eval/seconds": round(time.monotonic() - started, 2),
        }

    def _keep(self, measured: dict[str, float], step: int) -> None:
        """Save the weights beside the old best, then put them in its place."""
        new = self.fresh
        self.trainer.save_model(str(new), _internal_call=True)  # every process: sharded weights are gathered
        self.trainer.accelerator.wait_for_everyone()
        if self.trainer.is_world_process_zero():
            write_convention(new, self.checkpoint.convention)
            with atomic_write(new / SCORE_FILE) as file:
                json.dump({"step": step, **measured}, file, indent=2)
            if self.card is not None:
                self.card.write(new, measured)
            if self.folder.exists():
                shutil.rmtree(self.folder)
            new.rename(self.folder)
        self.trainer.accelerator.wait_for_everyone()
