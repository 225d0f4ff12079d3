"""Runs programs as a person would, in order or side by side, and goes on where it was stopped.

A stage is one command, and names the stages that it needs. What is done is written to ``stages.jsonl`` in the output
folder, with the command and its time; the same stage with the same command is not run twice. Programs resume by
themselves, so a stage stopped in the middle loses little.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stage:
    """One command: a module of ours and its arguments, how long it takes (only for the estimate), and the names of
    the stages whose files it reads (they only matter where stages run side by side)."""

    name: str
    module: str
    arguments: tuple[str, ...]
    expected_s: float
    needs: tuple[str, ...] = ()

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

        With `jobs` above 1 so many stages run at once, each on its share of the cores and as soon as what it needs is
        done, the first in the list first. Small models train faster so, two runs on a core each, than one run on both.
        When one fails the others that have started are waited for.
        """
        todo = [stage for stage in stages if not self.is_done(stage)]
        for stage in stages:
            if stage not in todo:
                self._tell(f"{stage.name}: done before")
        waiting, started, failed = list(enumerate(todo, 1)), {}, []
        left, pace = sum(stage.expected_s for stage in todo), 1.0
        with ThreadPoolExecutor(jobs) as pool:
            while waiting or started:
                unfinished = {stage.name for _, stage in waiting} | {stage.name for stage in started.values()}
                for number, stage in [one for one in waiting if not unfinished.intersection(one[1].needs)]:
                    if len(started) < jobs and not failed:
                        self._tell(f"[{number}/{len(todo)}] {stage.name} (about {_minutes(left * pace / jobs)} left)")
                        started[pool.submit(self._call, stage, jobs)] = stage
                        waiting.remove((number, stage))
                if not started:
                    break
                for future in wait(started, return_when=FIRST_COMPLETED).done:
                    stage = started.pop(future)
                    if not future.exception():
                        self._note(stage, future.result())
                        pace = 0.5 * pace + 0.5 * min(10.0, max(0.1, future.result() / stage.expected_s))
                    else:
                        failed.append((todo.index(stage), future))
                    left -= stage.expected_s
        self._raise(failed, waiting)

    @staticmethod
    def _raise(failed: list[tuple[int, Future[float]]], waiting: list[tuple[int, Stage]]) -> None:
        """Raise what the first stage that failed raised."""
        for _, future in sorted(failed, key=lambda one: one[0]):
            future.result()
        if waiting:
            names = ", ".join(stage.name for _, stage in waiting)
            raise FieldmarkError(f"these stages need one another, or themselves: {names}")

    def _call(self, stage: Stage, jobs: int = 1) -> float:
        """Run the command; returns the seconds that it took. Side by side, each line says whose it is."""
        started = time.monotonic()
        share = {"OMP_NUM_THREADS": str(max(1, cpus() // jobs)), "PYTHONUNBUFFERED": "1"} if jobs > 1 else {}
        offline = {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"), "TOKENIZERS_PARALLELISM": "false"}
        stdout, stderr = (subprocess.PIPE, subprocess.STDOUT) if jobs > 1 else (None, None)
        environment = os.environ | share | offline
        with subprocess.Popen(stage.command, env=environment, text=True, stdout=stdout, stderr=stderr) as process:
            for line in process.stdout or ():
                sys.stdout.write(f"{stage.name} | {line}" if line.strip() else "")
                sys.stdout.flush()
        if process.returncode != 0:
            shown = " ".join([stage.module, *stage.arguments])
            raise FieldmarkError(
                f"stage '{stage.name}' ended with code {process.returncode}: python -m {shown}\n"
                "Run the same command again to go on from here."
            )
        return time.monotonic() - started

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
