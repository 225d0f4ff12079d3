"""Evaluation of generated answers during training, and the best checkpoint by it: Acc@0.5, or R@1 of captions."""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from transformers import Trainer, TrainerCallback
from trl.models.utils import unwrap_model_for_generation

from mllm.config import Evaluate
from mllm.inference.generate import generate
from mllm.inference.sampling import Sampling
from mllm.io.files import atomic_write
from mllm.io.jsonl import write_jsonl
from mllm.models.checkpoint import Checkpoint, Loaded
from mllm.models.families import write_convention
from mllm.records import Completion, Sample
from mllm.training import validation_metrics
from mllm.training.dataset import Data
from mllm.training.model_card import ModelFacts

logger = logging.getLogger(__name__)

BEST = "best"
SCORE_FILE = "score.json"
ANSWERS = "validation"
"""Folder of the answers: `step-N.jsonl` holds one completion for each validation sample."""


class GeneratedEval(TrainerCallback):
    """Answers validation samples every few steps, logs `eval/*`, keeps the answers, and the best weights in `best/`.

    Each process answers its share; all take part, because sharded weights have to be gathered. Decoding is greedy, so
    no random numbers are drawn. Only a strictly better score replaces `best/`: of equal checkpoints the earlier stays.

    Args:
        trainer: whose weights are evaluated.
        checkpoint: the processor and family that the weights started from.
        data: the run's data; `data.validation` is answered.
        settings: how often, and how many samples.
        card: writes the model card of `best/`; None writes none.
        scores: is updated with the latest scores.
    """

    def __init__(
        self,
        trainer: Trainer,
        checkpoint: Checkpoint | Loaded,
        data: Data,
        settings: Evaluate,
        card: ModelFacts | None = None,
        scores: dict[str, float] | None = None,
    ) -> None:
        self.trainer, self.checkpoint, self.settings, self.card = trainer, checkpoint, settings, card
        self.samples, self.root = data.validation, data.images_root
        self.scores: dict[str, float] = {} if scores is None else scores
        self.metric = validation_metrics.choose(self.samples, self.root, settings)
        self.folder = Path(trainer.args.output_dir or ".") / BEST
        self.new_folder = self.folder.with_name(f"{BEST}.new")
        self.best = -1.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remove an older run's `best/` and answers when a new run starts; read the score when a run is resumed."""
        best = [-1.0]
        if state.is_world_process_zero:
            for old in (self.folder, self.folder.with_name(ANSWERS)):
                if state.global_step == 0 and old.exists():
                    shutil.rmtree(old)
            if state.global_step and not self.folder.exists() and (self.new_folder / SCORE_FILE).is_file():
                self.new_folder.rename(self.folder)  # the run was killed between the two steps of replacing it
            if (self.folder / SCORE_FILE).is_file():
                saved = json.loads((self.folder / SCORE_FILE).read_text(encoding="utf-8"))
                best = [saved.get(self.metric.key, -1.0)]  # `validation` may have changed, and with it the metric
        broadcast_object_list(best)  # the folder may be on the first node only
        self.best = float(best[0])
        if self.settings.at_start and state.global_step == 0:
            self._measure_and_log(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate, log, and keep the weights if they are the best so far."""
        if state.global_step % self.settings.every and state.global_step < state.max_steps:
            return
        measured = self._measure_and_log(control)
        if measured[self.metric.key] > self.best:
            self.best = measured[self.metric.key]
            self._keep(measured, state.global_step)

    def _measure_and_log(self, control: Any) -> dict[str, float]:
        """Evaluate and log; the scores become the model card's."""
        measured = self.measure()
        self.scores.clear()
        self.scores.update(measured)
        should_log = control.should_log
        # Trainer.log itself: the subclasses' versions would close their own running averages in the middle of a window.
        Trainer.log(self.trainer, dict(measured))
        control.should_log = should_log  # logging resets it, and the step's own log would be lost
        return measured

    def measure(self) -> dict[str, float]:
        """Answer the samples and score the answers; returns the same numbers on every process."""
        started, accelerator = time.monotonic(), self.trainer.accelerator
        completions = answers(
            self.trainer, self.checkpoint, self.samples, self.root,
            sampling=Sampling(self.settings.max_new_tokens), batch_size=self.settings.batch_size,
        )  # fmt: skip
        measured: list[Any] = [self._score(completions, started) if accelerator.is_main_process else None]
        broadcast_object_list(measured)
        return measured[0]

    def _score(self, by_id: Mapping[str, Completion], started: float) -> dict[str, float]:
        completions = [by_id[sample.id] for sample in self.samples]
        write_jsonl(self.folder.with_name(ANSWERS) / f"step-{self.trainer.state.global_step}.jsonl", completions)
        return {
            **self.metric(self.samples, completions),
            "eval/tokens": sum(one.tokens or 0 for one in completions) / len(completions),
            "eval/samples": len(completions),
            "eval/seconds": round(time.monotonic() - started, 2),
        }

    def _keep(self, measured: dict[str, float], step: int) -> None:
        """Save the weights beside the old best, then replace it."""
        self.trainer.save_model(str(self.new_folder), _internal_call=True)  # all processes: weights may be sharded
        self.trainer.accelerator.wait_for_everyone()
        if self.trainer.is_world_process_zero():
            write_convention(self.new_folder, self.checkpoint.convention)
            with atomic_write(self.new_folder / SCORE_FILE) as file:
                json.dump({"step": step, **measured}, file, indent=2)
            if self.card is not None:
                self.card.write(self.new_folder, measured)
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.new_folder.rename(self.folder)
        self.trainer.accelerator.wait_for_everyone()


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
