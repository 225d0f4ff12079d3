"""Rows of one file made by several processes: one log per process, merged in order when all are done.

Which process makes a row does not change it, so any number of processes, and any number of stops, gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm.distributed import World
from mllm.io.files import atomic_write
from mllm.io.jsonl import append_jsonl, repair_jsonl


class Shards:
    """The rows of one unfinished file, in one log per process: `<name>.part.jsonl`, `<name>.part-1.jsonl` ...

    The field `key` identifies a row. A stopped run may resume with another number of processes.
    """

    def __init__(self, file: Path, world: World, key: str = "id") -> None:
        """Read the state: `finished`, or the keys that are `done` (incomplete last rows are removed).

        The barriers make sure that every process reads the logs before any process writes.
        """
        self.file, self.world, self.key = file, world, key
        self.log = file.with_suffix(".part.jsonl" if world.is_main else f".part-{world.rank}.jsonl")
        self.finished = file.exists()
        world.barrier()
        if world.is_main:
            for log in self._logs():
                log.unlink() if self.finished else repair_jsonl(log)
        world.barrier()
        self.done: frozenset[str] = frozenset() if self.finished else frozenset(self._index())
        world.barrier()

    def add(self, row: Any) -> None:
        """Append one row to this process's log, unless an earlier run wrote it."""
        if getattr(row, self.key) not in self.done:
            append_jsonl(self.log, row)

    def close(self, order: Callable[[str], Any]) -> None:
        """Merge the rows of all processes into the file, sorted by `order` of their keys, once all are done."""
        self.world.barrier()
        if self.world.is_main:
            index = self._index()
            with atomic_write(self.file) as out:
                for line in _lines(index, sorted(index, key=order)):
                    out.write(line)
            for log in self._logs():
                log.unlink()
        self.world.barrier()

    def _logs(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{self.file.stem}.part*.jsonl"))

    def _index(self) -> dict[str, tuple[Path, int]]:
        """Return the log and byte offset of each row. Rows stay on disk."""
        index: dict[str, tuple[Path, int]] = {}
        for log in self._logs():
            with log.open("rb") as rows:
                offset = 0
                for line in rows:
                    index.setdefault(str(json.loads(line)[self.key]), (log, offset))
                    offset += len(line)
        return index


def _lines(index: Mapping[str, tuple[Path, int]], keys: Sequence[str]) -> Iterator[str]:
    """Yield rows from their logs, one by one."""
    opened = {log: log.open("rb") for log in {log for log, _ in index.values()}}
    try:
        for key in keys:
            log, offset = index[key]
            opened[log].seek(offset)
            yield opened[log].readline().decode()
    finally:
        for file in opened.values():
            file.close()
