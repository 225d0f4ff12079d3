"""Runs programs one after the other or side by side, and resumes where it was stopped.

A stage is one command, and names the stages that it needs. Finished stages are written to `stages.jsonl` in the output
folder; the same stage with the same command is not run twice. Programs resume by themselves.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write, program_folder

POCKET_DATA = ("--max-things=4", "--photos-per-entity=12")
"""Two to four things an image keep the pocket model's thoughts short."""
FALLIBLE = ("--teacher=pocket_fallible", "--thought-checks=answer")
"""Thoughts of a fallible teacher, kept where their conclusion is right, as in the papers."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One command: a module and its arguments, its expected seconds, and the names of the stages whose files it reads.

    `needs` only matters where stages run side by side.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    expected_s: float
    needs: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The command, without `python -m`."""
        return [self.module, *self.arguments]


class Pipeline:
    """Stages of one output folder; `report` gets one line about each."""

    def __init__(self, out: Path, report: Callable[[str], None]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._report, self._file = report, out / "stages.jsonl"
        lines = self._file.read_text(encoding="utf-8").splitlines() if self._file.is_file() else []
        self._done = {row["name"]: row for row in map(json.loads, lines)}

    def run(self, stages: Sequence[Stage], jobs: int = 1) -> None:
        """Run what is not done yet, up to `jobs` stages at once, each on its share of the cores.

        A stage starts as soon as what it needs is done, the first in the list first. After a failure no other stage
        starts, and those that run are waited for.

        Raises FieldmarkError: a command failed (names the stage), or stages need one another.
        """
        todo = [stage for stage in stages if self._done.get(stage.name, {}).get("arguments") != stage.words]
        for stage in stages:
            if stage not in todo:
                self._report(f"{stage.name}: done before")
        waiting, running, failed = list(todo), {}, {}
        with ThreadPoolExecutor(jobs) as pool:
            while waiting or running:
                unfinished = {stage.name for stage in (*waiting, *running.values())}
                left = sum(stage.expected_s for stage in (*waiting, *running.values()))
                for stage in [one for one in waiting if not unfinished.intersection(one.needs)]:
                    if len(running) < jobs and not failed:
                        number = f"[{todo.index(stage) + 1}/{len(todo)}]"
                        self._report(f"{number} {stage.name} (about {max(1, round(left / jobs / 60))} min left)")
                        running[pool.submit(_call, stage, jobs)] = stage
                        waiting.remove(stage)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    stage = running.pop(future)
                    if future.exception():
                        failed[todo.index(stage)] = future
                    else:
                        self._note(stage, future.result())
        if failed:
            failed[min(failed)].result()  # raises what the first stage raised
        if waiting:
            names = ", ".join(stage.name for stage in waiting)
            raise FieldmarkError(f"these stages need one another, or themselves: {names}")

    def _note(self, stage: Stage, seconds: float) -> None:
        self._done[stage.name] = {"name": stage.name, "arguments": stage.words, "seconds": round(seconds, 1)}
        with atomic_write(self._file) as file:
            file.writelines(json.dumps(row) + "\n" for row in self._done.values())


def _call(stage: Stage, jobs: int) -> float:
    """Run the command; returns the seconds that it took. Side by side, each line begins with the stage's name."""
    started = time.monotonic()
    share = {"OMP_NUM_THREADS": str(max(1, cpus() // jobs)), "PYTHONUNBUFFERED": "1"} if jobs > 1 else {}
    offline = {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"), "TOKENIZERS_PARALLELISM": "false"}
    stdout, stderr = (subprocess.PIPE, subprocess.STDOUT) if jobs > 1 else (None, None)
    command, environment = [sys.executable, "-m", *stage.words], os.environ | share | offline
    with subprocess.Popen(command, env=environment, text=True, stdout=stdout, stderr=stderr) as process:
        for line in process.stdout or ():
            sys.stdout.write(f"{stage.name} | {line}" if line.strip() else "")
            sys.stdout.flush()
    if process.returncode != 0:
        raise FieldmarkError(
            f"stage '{stage.name}' ended with code {process.returncode}: python -m {' '.join(stage.words)}\n"
            "Run the same command again to go on from here."
        )
    return time.monotonic() - started


def cpus() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def counts(train: int, validation: int, test: int) -> tuple[str, ...]:
    """Return the flags that say how many rows of each split to synthesize."""
    return f"--train={train}", f"--validation={validation}", f"--test={test}"


def training(
    name: str, config: str, data: Path, out: Path, flags: Iterable[str], seconds: float, needs: tuple[str, ...] = ()
) -> Stage:
    """Return the training of a recipe (`config` names its YAML file) on the samples files in `data`."""
    arguments = (
        f"--config={program_folder('recipes') / config}.yaml",
        f"--train={data / 'train.jsonl'}",
        f"--validation={data / 'validation.jsonl'}",
        f"--output_dir={out}",
        *flags,
    )
    return Stage(name, f"mllm.recipes.{'sft' if 'sft' in config else 'rl'}", arguments, seconds, needs)


def answers(
    name: str,
    program: str,
    model: str,
    test: Path,
    out: Path,
    flags: Iterable[object],
    seconds: float,
    needs: tuple[str, ...] = (),
) -> Stage:
    """Return the stage in which a program of `eval/` asks a model about the samples in `test`."""
    files = ("--model", model, "--samples", str(test), "--out", str(out))
    return Stage(name, f"mllm.eval.{program}", (*files, *map(str, flags)), seconds, needs)


def report(
    out: Path, folders: Mapping[str, Mapping[str, str]], flags: tuple[str, ...] = (), needs: tuple[str, ...] = ()
) -> Stage:
    """Return the stage that writes `report.html`; `folders` has {name: folder in `out`} for each flag."""
    pairs = [(flag, f"{name}={out / path}") for flag, found in folders.items() for name, path in found.items()]
    arguments = ("report", *(word for pair in pairs for word in pair), "--out", str(out / "report.html"), *flags)
    return Stage("report", "mllm.cli", arguments, 10, needs)
