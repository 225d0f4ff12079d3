"""Rows of one file made by several processes: one log per process, merged in order when all are done."""

import json
from collections.abc import Callable
from contextlib import ExitStack
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
            with atomic_write(self.file) as out, ExitStack() as stack:  # rows stay on disk until they are written
                opened = {log: stack.enter_context(log.open("rb")) for log in self._logs()}
                for key in sorted(index, key=order):
                    log, offset = index[key]
                    opened[log].seek(offset)
                    out.write(opened[log].readline().decode())
            for log in self._logs():
                log.unlink()
        self.world.barrier()

    def _logs(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{self.file.stem}.part*.jsonl"))

    def _index(self) -> dict[str, tuple[Path, int]]:
        """Return the log and byte offset of each row."""
        index: dict[str, tuple[Path, int]] = {}
        for log in self._logs():
            with log.open("rb") as rows:
                offset = 0
                for line in rows:
                    index.setdefault(str(json.loads(line)[self.key]), (log, offset))
                    offset += len(line)
        return index
