"""Mastery estimated anew while training: the same questions every so many steps, to the model as it is by then."""

from __future__ import annotations

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
from mllm.io.codec import encode
from mllm.io.files import atomic_write
from mllm.knowledge.mastery import MasteryTable, load_mastery
from mllm.models.checkpoint import Checkpoint, Loaded
from mllm.prompting import styles
from mllm.records import Completion, Sample
from mllm.training import distributed_generate
from mllm.training.grpo.weighted_advantages import Weighing
from mllm.training.trl_adapter import Row

logger = logging.getLogger(__name__)

FOLDER = "mastery"


class MasteryRefresh(TrainerCallback):
    """Asks about the training samples' things every so many steps and hands the new table to the trainer's weighing.

    Each process answers its share; all take part, since sharded weights have to be gathered. Greedy, so it draws no
    random numbers. `mastery/step-N.json` and the raw answers are kept in the output folder; a run that goes on takes up
    the last table before its checkpoint.

    With `by: choices` the image must show one thing, so only samples with a single thing can be asked about there;
    composites are asked about `by: marks`, or estimated once with eval/mastery.py, which cuts things out.
    """

    def __init__(
        self, trainer: Trainer, weighing: Weighing, checkpoint: Checkpoint | Loaded, rows: Sequence[Row]
    ) -> None:
        assert weighing.settings.mastery is not None and weighing.settings.mastery.refresh is not None
        self.trainer, self.weighing, self.checkpoint = trainer, weighing, checkpoint
        self.settings: Refresh = weighing.settings.mastery.refresh
        self.folder = Path(trainer.args.output_dir or ".") / FOLDER
        self.asked = questions(rows, self.settings, checkpoint, trainer.args.seed)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up the last table of a run that goes on; drop those of steps that will be taken again."""
        found = sorted((int(path.stem.removeprefix("step-")), path) for path in self.folder.glob("step-*.json"))
        before = [path for step, path in found if step <= state.global_step]
        if before and state.global_step:
            self.weighing.table = load_mastery(before[-1])
        if state.is_world_process_zero:
            for step, path in found:
                if step > state.global_step or not state.global_step:
                    path.unlink(missing_ok=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Estimate anew when it is due (not after the last step, when nobody would use it)."""
        if state.global_step % self.settings.every or state.global_step >= state.max_steps:
            return
        started = time.monotonic()
        said = self.ask()
        grade = knowledge_probe.grade_choices if self.settings.by == "choices" else knowledge_probe.grade_marks
        path = self.folder / f"step-{state.global_step}.json"
        table = MasteryTable.counted(grade(self.asked, said), str(path))
        old = self.weighing.table
        self.weighing.table = _over(old, table) if old is not None else table
        if state.is_world_process_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(path.with_suffix(".outputs.jsonl")) as file:
                file.writelines(encode(said[sample.id]) + "\n" for sample in self.asked)
            self.weighing.table.save(path, {"step": state.global_step, "by": self.settings.by})
        right = sum((entry.right or 0.0) for entry in table.values()) / sum(
            (entry.asked or 0) for entry in table.values()
        )
        due = control.should_log
        shares = {f"mastery/{name}": share for name, share in table.shares().items()}
        seconds = round(time.monotonic() - started, 2)
        Trainer.log(self.trainer, {"mastery/right": right, "mastery/seconds": seconds, **shares})
        control.should_log = due  # logging takes it back, and the step's own log would be lost

    def ask(self) -> dict[str, Completion]:
        """Answer every question; the same completions on every process."""
        style = styles.PLAIN if self.settings.by == "marks" else None
        return distributed_generate.answers(
            self.trainer, self.checkpoint, self.asked, Path(), style=style,
            max_new_tokens=self.settings.max_new_tokens, batch_size=self.settings.batch_size,
        )  # fmt: skip


def questions(rows: Sequence[Row], settings: Refresh, checkpoint: Checkpoint | Loaded, seed: int) -> list[Sample]:
    """Return what is asked about the things of training rows, images as absolute paths.

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
            "advantage.mastery.refresh.by: choices needs images of one thing, and every training image shows "
            "several; set by: marks, or leave refresh out and estimate once with eval/mastery.py, which cuts things out"
        )
    return knowledge_probe.choices(knowledge_probe.draw(single, settings.per_entity, seed), entities, seed)


def _over(old: MasteryTable, new: MasteryTable) -> MasteryTable:
    """Return the new table, with the old one's entries for entities that were not asked about."""
    kept = {name: entry for name, entry in old.items() if name not in new and entry.asked}
    return MasteryTable({**kept, **new}, new.origin)
