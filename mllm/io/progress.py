"""A bar with an ETA for programs that take a while; on stderr, and from the first process only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mllm.crew import Crew


@contextmanager
def progress(what: str, total: int | None, done: int = 0, *, crew: Crew | None = None) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs; yields what to call after each step. `crew` shows the first process's share."""
    columns = (TextColumn(f"{what:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    quiet = crew is not None and not crew.first
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda: bar.advance(task)
