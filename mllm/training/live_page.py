"""`live.html` in the folder of a run that trains, and its rollouts in TensorBoard or W&B if `report_to` names them.

The first process writes it; if that or a tracker fails, a warning is logged once, and training continues.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from mllm.errors import FieldmarkError
from mllm.evaluation.report import curves, live
from mllm.evaluation.report.live import Group, Progress
from mllm.io.files import atomic_write
from mllm.io.jsonl import read_jsonl
from mllm.prompting.tasks import task_of
from mllm.records import Completion, Sample, Score
from mllm.training.callbacks import JOURNAL, clock
from mllm.training.dataset import Data
from mllm.training.health import HealthChecks
from mllm.training.trl_adapter import Row
from mllm.training.validation import ANSWERS

logger = logging.getLogger(__name__)

PAGE = "live.html"
PROMPTS = 3  # of the last batch, shown with all their answers
EVERY_S = 10.0  # fewest seconds between two pages; drawing one takes about 0.1 s


class Rollouts:
    """The first prompts of the last batch with their answers and scores. `images`: image files by sample id."""

    def __init__(self, images: Mapping[str, Path]) -> None:
        self.images = images
        self.groups: list[Group] = []
        self._places: list[list[int]] = []
        self._batch: Sequence[str] = ()

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Rollouts:
        """Build it for training rows."""
        return cls({row.record.id: row.image for row in rows if isinstance(row.record, Sample) and row.image})

    def add(
        self, name: str, samples: Sequence[Sample], completions: Sequence[Completion], scores: Sequence[Score]
    ) -> None:
        """Add one reward's scores of a batch; a reward that was added before begins the next batch."""
        texts = [completion.text for completion in completions]
        if texts != self._batch or not self.groups or name in self.groups[0].values:
            ids = list(dict.fromkeys(sample.id for sample in samples if sample.id in self.images))[:PROMPTS]
            self._places = [[place for place, sample in enumerate(samples) if sample.id == own] for own in ids]
            self.groups = [
                Group(samples[places[0]], self.images[own], [completions[place] for place in places])
                for own, places in zip(ids, self._places, strict=True)
            ]
            self._batch = texts
        for group, places in zip(self.groups, self._places, strict=True):
            group.values[name] = [scores[place].value for place in places]


class ValidationAnswers:
    """The first validation samples with the answers that the latest evaluation left in `output_dir`, and their scores.

    For runs without rollouts.
    """

    def __init__(self, data: Data, output_dir: Path) -> None:
        self.samples, self.root, self.folder = data.validation[:PROMPTS], data.images_root, output_dir / ANSWERS

    @property
    def groups(self) -> list[Group]:
        """One answer for each sample; empty before the first evaluation."""
        files = sorted(self.folder.glob("step-*.jsonl"), key=lambda file: int(file.stem.split("-")[1]))
        found = {row.sample_id: row for row in read_jsonl(files[-1], Completion)} if files else {}
        asked = [sample for sample in self.samples if sample.id in found]
        return [
            Group(sample, self.root / sample.image, [found[sample.id]], _score(sample, found[sample.id]))
            for sample in asked
        ]


def _score(sample: Sample, done: Completion) -> dict[str, list[float | None]]:
    value = task_of(sample).score(done.answer, sample)
    return {} if value is None else {"score": [value]}


class LivePage(TrainerCallback):
    """Writes the page after a log. `health` has the current warnings; trackers are among `trainer`'s callbacks."""

    def __init__(
        self,
        trainer: Any,
        output_dir: Path,
        answers: Rollouts | ValidationAnswers,
        health: HealthChecks | None = None,
    ) -> None:
        self.trainer, self.output_dir, self.answers, self.health = trainer, output_dir, answers, health
        self._first, self._started, self._last = 0, time.monotonic(), -EVERY_S
        self._page_failed = self._tracker_failed = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._first, self._started = state.global_step, time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write the page if the last one is old enough."""
        if state.is_world_process_zero and time.monotonic() - self._last >= EVERY_S:
            self._draw(state, ended=False)
            if isinstance(self.answers, Rollouts) and not self._page_failed and not self._tracker_failed:
                self._report(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the last page, which does not reload itself."""
        if state.is_world_process_zero:
            self._draw(state, ended=True)

    def _draw(self, state: Any, *, ended: bool) -> None:
        done, seconds = state.global_step - self._first, time.monotonic() - self._started
        left = clock((state.max_steps - state.global_step) * seconds / done) if done else ""
        at = Progress(str(self.output_dir), state.global_step, state.max_steps, left, ended)
        warnings = list(self.health.messages.values()) if self.health is not None else []
        try:
            journal = self.output_dir / JOURNAL
            text = live.html(at, curves.read_log(journal) if journal.is_file() else [], warnings, self.answers.groups)
            with atomic_write(self.output_dir / PAGE) as file:
                file.write(text)
        except (OSError, FieldmarkError) as error:
            if not self._page_failed:
                logger.warning("%s cannot be written (%s); training goes on", self.output_dir / PAGE, error)
            self._page_failed = True
        self._last = time.monotonic()

    def _report(self, step: int) -> None:
        """Send images and texts to TensorBoard and W&B, if they are in use."""
        try:
            for number, group in enumerate(self.answers.groups, 1):
                self._report_group(f"rollouts/{number}", group, step)
        except Exception as error:  # trackers raise any kind of error: full disks, lost connections, their own classes
            logger.warning("rollouts cannot be sent to report_to (%s); training goes on without them", error)
            self._tracker_failed = True

    def _report_group(self, tag: str, group: Group, step: int) -> None:
        image, text = live.drawn(group), _markdown(group)
        for callback in self.trainer.callback_handler.callbacks:
            writer = getattr(callback, "tb_writer", None)
            if writer is not None:
                writer.add_image(tag, np.asarray(image.convert("RGB")), step, dataformats="HWC")
                writer.add_text(tag, text, step)
            wandb = getattr(callback, "_wandb", None)
            if wandb is not None and getattr(wandb, "run", None) is not None:
                wandb.log({f"rollouts/{group.sample.id}": wandb.Image(image, caption=text)}, commit=False)


def _markdown(group: Group) -> str:
    """Return the group's question and answers with each answer's rewards; model text is formatted as code."""
    lines = [group.sample.question, ""]
    for place, completion in enumerate(group.answers):
        values = ", ".join(f"{name} {column[place]}" for name, column in group.values.items())
        lines += [f"{place + 1}. {values}", "", *(f"    {line}" for line in completion.text[:1000].splitlines()), ""]
    return "\n".join(lines)
