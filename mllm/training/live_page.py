"""`live.html` in a run's folder while it trains, and its images in TensorBoard or W&B where `report_to` names them.

Looking costs little and can break nothing: the page is drawn at most every few seconds, by the first process alone, and
a page that cannot be written, or a tracker that fails, is reported once and left alone from then on.
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
from mllm.records import Completion, Sample, Score
from mllm.training.callbacks import JOURNAL, clock

logger = logging.getLogger(__name__)

PAGE = "live.html"
PROMPTS = 3
"""Prompts of the last batch that are shown, with all their answers."""
EVERY_S = 10.0
"""Seconds between two pages, at least: drawing takes about a tenth of one."""


class Rollouts:
    """The last batch's first prompts with their answers, as the rewards hear of them; `images` by sample id."""

    def __init__(self, images: Mapping[str, Path], prompts: int = PROMPTS) -> None:
        self.images, self.prompts = images, prompts
        self.groups: list[Group] = []
        self._places: list[list[int]] = []
        self._batch: Sequence[str] = ()

    def hear(self, name: str, samples: Sequence[Sample], read: Sequence[Completion], scores: Sequence[Score]) -> None:
        """Note what one reward gave to a batch; a reward that was heard already begins the next batch."""
        texts = [done.text for done in read]
        if texts != self._batch or not self.groups or name in self.groups[0].values:
            self._begin(samples, read)
            self._batch = texts
        for group, places in zip(self.groups, self._places, strict=True):
            group.values[name] = [scores[place].value for place in places]

    def _begin(self, samples: Sequence[Sample], read: Sequence[Completion]) -> None:
        chosen = [name for name in dict.fromkeys(sample.id for sample in samples) if name in self.images]
        chosen = chosen[: self.prompts]
        self._places = [[place for place, one in enumerate(samples) if one.id == name] for name in chosen]
        self.groups = [
            Group(samples[places[0]], self.images[name], [read[place] for place in places])
            for name, places in zip(chosen, self._places, strict=True)
        ]


class LivePage(TrainerCallback):
    """Writes the page behind each log; add it behind the journal. `alarms` knows what rings, `trainer` who reports."""

    def __init__(self, trainer: Any, output_dir: Path, rollouts: Rollouts | None = None, alarms: Any = None) -> None:
        self.trainer, self.output_dir, self.rollouts, self.alarms = trainer, output_dir, rollouts, alarms
        self._first, self._started, self._last = 0, time.monotonic(), -EVERY_S
        self._broken = self._deaf = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._first, self._started = state.global_step, time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Draw, if the last page is old enough."""
        if state.is_world_process_zero and time.monotonic() - self._last >= EVERY_S:
            self._draw(state, ended=False)
            if not self._broken and not self._deaf:
                self._try_to_report(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the last page, which does not load itself anew."""
        if state.is_world_process_zero:
            self._draw(state, ended=True)

    def _draw(self, state: Any, *, ended: bool) -> None:
        done, seconds = state.global_step - self._first, time.monotonic() - self._started
        left = clock((state.max_steps - state.global_step) * seconds / done) if done else ""
        at = Progress(str(self.output_dir), state.global_step, state.max_steps, left, ended)
        said = list(self.alarms.said.values()) if self.alarms is not None else []
        groups = self.rollouts.groups if self.rollouts is not None else []
        try:
            journal = self.output_dir / JOURNAL
            text = live.html(at, curves.read_log(journal) if journal.is_file() else [], said, groups)
            with atomic_write(self.output_dir / PAGE) as file:
                file.write(text)
        except (OSError, FieldmarkError) as error:
            if not self._broken:
                logger.warning("%s cannot be written (%s); training goes on", self.output_dir / PAGE, error)
            self._broken = True
        self._last = time.monotonic()

    def _try_to_report(self, step: int) -> None:
        """Report; a tracker that fails, in whatever way, is not worth a training."""
        try:
            self._report(step)
        except Exception as error:  # a tracker's errors are of any kind: full disks, lost connections, its own classes
            logger.warning("rollouts cannot be given to report_to (%s); training goes on without them", error)
            self._deaf = True

    def _report(self, step: int) -> None:
        """Give the images and texts to TensorBoard and W&B, where they are in use."""
        for number, group in enumerate(self.rollouts.groups if self.rollouts is not None else (), 1):
            image, told = live.drawn(group), _told(group)
            for callback in self.trainer.callback_handler.callbacks:
                writer = getattr(callback, "tb_writer", None)
                if writer is not None:
                    where = f"rollouts/{number}"
                    writer.add_image(where, np.asarray(image.convert("RGB")), step, dataformats="HWC")
                    writer.add_text(where, told, step)
                wandb = getattr(callback, "_wandb", None)
                if wandb is not None and getattr(wandb, "run", None) is not None:
                    shown = wandb.Image(image, caption=told)
                    wandb.log({f"rollouts/{group.sample.id}": shown}, commit=False)


def _told(group: Group) -> str:
    """The group's question and answers, with each answer's rewards, as Markdown; model text as code."""
    lines = [group.sample.question, ""]
    for place, done in enumerate(group.answers):
        values = ", ".join(f"{name} {column[place]}" for name, column in group.values.items())
        lines += [f"{place + 1}. {values}", "", *(f"    {line}" for line in done.text[:1000].splitlines()), ""]
    return "\n".join(lines)
