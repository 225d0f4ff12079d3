"""Mastery estimated again during training: the same questions every few steps, answered with the current weights."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from mllm.config import Refresh
from mllm.errors import FieldmarkError
from mllm.evaluation import knowledge_probe
from mllm.inference.sampling import Sampling
from mllm.io.codec import encode
from mllm.io.files import atomic_write
from mllm.knowledge.mastery import MasteryTable, load_mastery
from mllm.models.checkpoint import Checkpoint, Loaded
from mllm.prompting import prompts
from mllm.records import Sample
from mllm.training import validation
from mllm.training.grpo.weighted_advantages import AdvantageWeights
from mllm.training.trl_adapter import Row

logger = logging.getLogger(__name__)


class MasteryRefresh(TrainerCallback):
    """Asks about the training samples' entities every few steps and replaces the table of `weights`.

    Each process answers its share; all take part, because sharded weights have to be gathered. Decoding is greedy, so
    no random numbers are drawn. `mastery/step-N.json` and the raw answers are kept in the output folder; a resumed run
    continues with the last table before its checkpoint.

    With `by: choices` the image must show a single thing, so samples with several are left out; ask about composites
    with `by: marks`, or estimate once with eval/mastery.py, which crops them.
    """

    def __init__(
        self,
        trainer: Trainer,
        weights: AdvantageWeights,
        checkpoint: Checkpoint | Loaded,
        rows: Sequence[Row],
        settings: Refresh,
    ) -> None:
        self.trainer, self.weights, self.checkpoint, self.settings = trainer, weights, checkpoint, settings
        self.folder = Path(trainer.args.output_dir or ".") / "mastery"
        self.questions = questions(rows, settings, checkpoint, trainer.args.seed)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Load the last table of a resumed run; delete those of steps that will be repeated."""
        tables = sorted((int(path.stem.removeprefix("step-")), path) for path in self.folder.glob("step-*.json"))
        before = [path for step, path in tables if step <= state.global_step]
        if before and state.global_step:
            self.weights.table = load_mastery(before[-1])
        if state.is_world_process_zero:
            for step, path in tables:
                if step > state.global_step or not state.global_step:
                    path.unlink(missing_ok=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Estimate when it is due (not after the last step, when it would not be used)."""
        if state.global_step % self.settings.every or state.global_step >= state.max_steps:
            return
        started = time.monotonic()
        completions = validation.answers(
            self.trainer, self.checkpoint, self.questions, Path(),
            style=prompts.PLAIN if self.settings.by == "marks" else None,
            sampling=Sampling(self.settings.max_new_tokens), batch_size=self.settings.batch_size,
        )  # fmt: skip
        grade = knowledge_probe.grade_choices if self.settings.by == "choices" else knowledge_probe.grade_marks
        path = self.folder / f"step-{state.global_step}.json"
        table = MasteryTable.counted(grade(self.questions, completions), str(path))
        kept = {name: old for name, old in self.weights.table.items() if name not in table}
        self.weights.table = MasteryTable({**kept, **table}, table.origin)
        if state.is_world_process_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(path.with_suffix(".outputs.jsonl")) as file:
                file.writelines(encode(completions[sample.id]) + "\n" for sample in self.questions)
            self.weights.table.save(path, {"step": state.global_step, "by": self.settings.by})
        right, total = (sum(getattr(entry, name) or 0 for entry in table.values()) for name in ("right", "asked"))
        seconds = round(time.monotonic() - started, 2)
        shares = {f"mastery/{name}": share for name, share in table.shares().items()}
        should_log = control.should_log
        Trainer.log(self.trainer, {"mastery/right": right / total, "mastery/seconds": seconds, **shares})
        control.should_log = should_log  # logging resets it, and the step's own log would be lost


def questions(rows: Sequence[Row], settings: Refresh, checkpoint: Checkpoint | Loaded, seed: int) -> list[Sample]:
    """Return the questions about the entities of training rows, with absolute image paths.

    Raises:
        FieldmarkError: `by: choices` and no image with a single thing; a domain with fewer than four entities.
    """
    samples = [
        replace(row.record, image=str(row.image.resolve()))
        for row in rows
        if isinstance(row.record, Sample) and row.image is not None
    ]
    pool = knowledge_probe.items(samples)
    entities = knowledge_probe.by_domain(pool)
    if settings.by == "marks":
        chosen = knowledge_probe.draw(pool, settings.per_entity, seed)
        return knowledge_probe.marks(chosen, entities, seed, checkpoint.family, checkpoint.convention.budget)
    single = [item for item in pool if not item.beside]
    if not single:
        raise FieldmarkError(
            "advantage.mastery.refresh.by: choices needs images of one thing, but every training image shows several; "
            "set by: marks, or remove refresh and estimate once with eval/mastery.py, which crops single things"
        )
    return knowledge_probe.choices(knowledge_probe.draw(single, settings.per_entity, seed), entities, seed)
