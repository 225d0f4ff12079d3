"""Runs programs one after the other, as a person would, and goes on where it was stopped.

A stage is one command. What is done is written to ``stages.jsonl`` in the output folder, with the command and its
time; the same stage with the same command is not run twice. Programs resume by themselves, so a stage stopped in the
middle loses little.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from mllm.errors import FieldmarkError
from mllm.records import atomic_write

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stage:
    """One command: a module of ours and its arguments, and how long it takes on two cores (only for the estimate)."""

    name: str
    module: str
    arguments: tuple[str, ...]
    expected_s: float

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", self.module, *self.arguments]


class Pipeline:
    """Stages of one output folder."""

    def __init__(self, out: Path, tell: Callable[[str], None]) -> None:
        self.out, self._tell = out, tell
        out.mkdir(parents=True, exist_ok=True)
        self._file = out / "stages.jsonl"
        self._done: dict[str, dict[str, object]] = {}
        if self._file.is_file():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._done[row["name"]] = row

    def is_done(self, stage: Stage) -> bool:
        """Whether this very command has been run to its end."""
        return self._done.get(stage.name, {}).get("arguments") == [stage.module, *stage.arguments]

    def run(self, stages: Sequence[Stage], jobs: int = 1) -> None:
        """Run what is not done yet; raises FieldmarkError naming the stage and how to go on when a command fails.

        With `jobs` above 1 so many stages run at once, each on its share of the cores: they must not need one another.
        Small models train faster so, two runs on a core each, than one run on both. When one fails the others that
        have started are waited for.
        """
        todo = [stage for stage in stages if not self.is_done(stage)]
        for stage in stages:
            if stage not in todo:
                self._tell(f"{stage.name}: done before")
        left, pace, lock = sum(stage.expected_s for stage in todo), 1.0, Lock()

        def work(numbered: tuple[int, Stage]) -> None:
            nonlocal left, pace
            number, stage = numbered
            with lock:
                if failed:
                    return
                self._tell(f"[{number}/{len(todo)}] {stage.name} (about {_minutes(left * pace / jobs)} left in all)")
            started = time.monotonic()
            try:
                self._call(stage, jobs)
            except FieldmarkError:
                failed.append(stage.name)
                raise
            seconds = time.monotonic() - started
            with lock:
                left -= stage.expected_s
                pace = 0.5 * pace + 0.5 * min(10.0, max(0.1, seconds / stage.expected_s))
                self._note(stage, seconds)

        failed: list[str] = []
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, enumerate(todo, 1)))

    def _call(self, stage: Stage, jobs: int = 1) -> None:
        share = {"OMP_NUM_THREADS": str(max(1, cpus() // jobs))} if jobs > 1 else {}
        environment = (
            os.environ
            | share
            | {
                "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
                "TOKENIZERS_PARALLELISM": "false",
            }
        )
        code = subprocess.run(stage.command, env=environment, check=False).returncode
        if code != 0:
            shown = " ".join([stage.module, *stage.arguments])
            raise FieldmarkError(
                f"stage '{stage.name}' ended with code {code}: python -m {shown}\n"
                "Run the same command again to go on from here."
            )

    def _note(self, stage: Stage, seconds: float) -> None:
        row: dict[str, object] = {
            "name": stage.name,
            "arguments": [stage.module, *stage.arguments],
            "seconds": round(seconds, 1),
        }
        self._done[stage.name] = row
        with atomic_write(self._file) as file:
            file.writelines(json.dumps(one) + "\n" for one in self._done.values())

    def seconds(self) -> dict[str, float]:
        """How long each stage took."""
        return {name: float(str(row["seconds"])) for name, row in self._done.items()}


def cpus() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min" if seconds >= 45 else "a minute"
