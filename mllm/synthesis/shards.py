"""Several processes at one data set, on one node or many: who does what, and when all have come so far.

Started by `accelerate launch`, which tells each process its number; without it there is one process, and no torch is
loaded. All nodes must see the same output folder. What is divided are the numbers of the rows still to be made, each of
which depends on its own number alone; so any number of processes, and any number of stops, gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mllm.data import manifest
from mllm.distributed import World
from mllm.io.files import atomic_write
from mllm.records import append_jsonl, repair_jsonl

T = TypeVar("T")


def once(
    out: Path, settings: Mapping[str, Any], story: Callable[[World], None], *, overwrite: bool = False
) -> dict[str, Any]:
    """Let every process of the world run `story` over a data set's folder, unless it is whole; return its manifest.

    The first process holds the folder (`manifest.claim`, whose errors it raises); the others wait until it does.
    """
    world = World.current()
    if not world.is_main:
        world.barrier()
        if not (out / manifest.MANIFEST).exists():
            story(world)
        return manifest.read(out)
    with manifest.claim(out, settings, overwrite=overwrite) as whole:
        world.barrier()
        if whole is None:
            story(world)
    return manifest.read(out)


class Shards:
    """The rows of one file in the making, in one log for each process: `<name>.part.jsonl`, `<name>.part-1.jsonl` ...

    A row is known by the value of its field `key`. A stopped run may go on with another number of processes.
    """

    def __init__(self, file: Path, world: World, key: str = "id") -> None:
        """Look at what there is: `finished`, or else the keys that are `done` (torn last rows are cut off).

        Every process must have come so far before one goes on: the logs are read before anybody writes.
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
        """Append one row to this process's log, unless it is there from an earlier run."""
        if getattr(row, self.key) not in self.done:
            append_jsonl(self.log, row)

    def close(self, order: Callable[[str], Any]) -> None:
        """Put the rows of all processes into the file, sorted by `order` of their keys, once everybody is done."""
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
