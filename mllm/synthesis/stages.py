"""Stages of a data program that may be stopped at any moment: logs that go on, whole images, threads in order.

A stage appends its rows to `<name>.part.jsonl`; when the last is in, the log becomes `<name>.jsonl`. A row that can be
read was written whole, and so was the image it names, since that is written first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from mllm.records import append_jsonl, read_jsonl, repair_jsonl, write_jsonl

T = TypeVar("T")
N = TypeVar("N")


class Stage:
    """The rows of one file in the making. `cls` is their record class."""

    def __init__(self, file: Path, cls: type[Any]) -> None:
        """Look at what there is: `finished`, or else `done` rows in the log (a torn last one is cut off)."""
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


def in_order(make: Callable[[N], T], numbers: Iterable[N], workers: int) -> Iterator[T]:
    """Yield `make(number)` for each number, in order; a few are made ahead in threads, never more than `2 * workers`.

    Threads suit images: Pillow lets go of the interpreter while it decodes, scales and encodes.
    """
    following = iter(numbers)
    with ThreadPoolExecutor(workers) as threads:
        waiting = deque(threads.submit(make, number) for number in islice(following, 2 * workers))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(threads.submit(make, number) for number in islice(following, 1))
        finally:
            for one in waiting:
                one.cancel()
