"""Several processes at one data set, on one node or many: who does what, and when all have come so far.

Started by `accelerate launch`, which tells each process its number; without it there is one process, and no torch is
loaded. All nodes must see the same output folder. What is divided are the numbers of the rows still to be made, each of
which depends on its own number alone; so any number of processes, and any number of stops, gives the same file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from mllm import manifest
from mllm.files import atomic_write
from mllm.records import append_jsonl, repair_jsonl

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""So long one process waits for the slowest (torch's own half an hour is less than a teacher may take)."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes of one run: this is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process does what only one may do."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has come here. The launcher ends all processes when one fails."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState(cpu=True, timeout=PATIENCE).wait_for_everyone()

    def share(self, numbers: Sequence[T]) -> Sequence[T]:
        """Return this process's part: every `size`-th number, so that all come to the end together."""
        return numbers[self.rank :: self.size]


def muster() -> Crew:
    """Return the crew that the launcher has started this process in."""
    return Crew(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def once(
    out: Path, settings: Mapping[str, Any], story: Callable[[Crew], None], *, overwrite: bool = False
) -> dict[str, Any]:
    """Let every process of the crew run `story` over a data set's folder, unless it is whole; return its manifest.

    The first process holds the folder (`manifest.claim`, whose errors it raises); the others wait until it does.
    """
    crew = muster()
    if not crew.first:
        crew.wait()
        if not (out / manifest.MANIFEST).exists():
            story(crew)
        return manifest.read(out)
    with manifest.claim(out, settings, overwrite=overwrite) as whole:
        crew.wait()
        if whole is None:
            story(crew)
    return manifest.read(out)


class Shards:
    """The rows of one file in the making, in one log for each process: `<name>.part.jsonl`, `<name>.part-1.jsonl` ...

    A row is known by the value of its field `key`. A stopped run may go on with another number of processes.
    """

    def __init__(self, file: Path, crew: Crew, key: str = "id") -> None:
        """Look at what there is: `finished`, or else the keys that are `done` (torn last rows are cut off).

        Every process must have come so far before one goes on: the logs are read before anybody writes.
        """
        self.file, self.crew, self.key = file, crew, key
        self.log = file.with_suffix(".part.jsonl" if crew.first else f".part-{crew.rank}.jsonl")
        self.finished = file.exists()
        crew.wait()
        if crew.first:
            for log in self._logs():
                log.unlink() if self.finished else repair_jsonl(log)
        crew.wait()
        self.done: frozenset[str] = frozenset() if self.finished else frozenset(self._index())
        crew.wait()

    def add(self, row: Any) -> None:
        """Append one row to this process's log, unless it is there from an earlier run."""
        if getattr(row, self.key) not in self.done:
            append_jsonl(self.log, row)

    def close(self, order: Callable[[str], Any]) -> None:
        """Put the rows of all processes into the file, sorted by `order` of their keys, once everybody is done."""
        self.crew.wait()
        if self.crew.first:
            index = self._index()
            with atomic_write(self.file) as out:
                for line in _lines(index, sorted(index, key=order)):
                    out.write(line)
            for log in self._logs():
                log.unlink()
        self.crew.wait()

    def _logs(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{self.file.stem}.part*.jsonl"))

    def _index(self) -> dict[str, tuple[Path, int]]:
        """Return where each row lies: log and offset. Rows stay on the disk."""
        index: dict[str, tuple[Path, int]] = {}
        for log in self._logs():
            with log.open("rb") as rows:
                offset = 0
                for line in rows:
                    index.setdefault(str(json.loads(line)[self.key]), (log, offset))
                    offset += len(line)
        return index


def _lines(index: Mapping[str, tuple[Path, int]], keys: Sequence[str]) -> Iterator[str]:
    """Read rows one by one from their logs."""
    opened = {log: log.open("rb") for log in {log for log, _ in index.values()}}
    try:
        for key in keys:
            log, offset = index[key]
            opened[log].seek(offset)
            yield opened[log].readline().decode()
    finally:
        for file in opened.values():
            file.close()
