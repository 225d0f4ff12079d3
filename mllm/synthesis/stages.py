"""Rows written so that a program can be stopped at any moment, and work done in threads without losing its order.

Rows are appended to `<name>.part.jsonl`; after the last one, the log becomes `<name>.jsonl`. A row that can be read is
complete, and so is the image it names, since that is written first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from mllm.io.jsonl import append_jsonl, read_jsonl, repair_jsonl, write_jsonl

T = TypeVar("T")
N = TypeVar("N")


class RowLog:
    """The rows of one unfinished file, written by one process. `cls` is their record class."""

    def __init__(self, file: Path, cls: type[Any]) -> None:
        """Read the state: `finished`, or the number of rows `done` in the log (an incomplete last one is removed)."""
        self.file, self.cls = file, cls
        self.log = file.with_suffix(".part.jsonl")
        self.finished = file.exists()
        self.done = 0
        if self.finished:
            self.log.unlink(missing_ok=True)  # stopped between the last two steps of `close`
        elif self.log.exists():
            repair_jsonl(self.log)
            self.done = sum(1 for _ in read_jsonl(self.log, cls))

    def add(self, row: Any) -> None:
        """Append one row."""
        append_jsonl(self.log, row)

    def close(self) -> None:
        """Turn the log into the file."""
        write_jsonl(self.file, read_jsonl(self.log, self.cls) if self.log.exists() else ())
        self.log.unlink(missing_ok=True)


def in_order(make: Callable[[N], T], items: Iterable[N], workers: int) -> Iterator[T]:
    """Yield `make(item)` for each item, in order; threads work ahead on at most `2 * workers` items.

    Threads suit images: Pillow releases the interpreter lock while it decodes, scales and encodes.
    """
    following = iter(items)
    with ThreadPoolExecutor(workers) as threads:
        waiting = deque(threads.submit(make, item) for item in islice(following, 2 * workers))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(threads.submit(make, item) for item in islice(following, 1))
        finally:
            for one in waiting:
                one.cancel()
