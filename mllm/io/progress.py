"""A progress bar with an ETA, on stderr and from the main process only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mllm.distributed import World


@contextmanager
def progress(
    what: str, total: int | None, done: int = 0, *, world: World | None = None
) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs; yields a function to call after each step."""
    columns = (TextColumn(f"{what:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    quiet = world is not None and not world.is_main
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda: bar.advance(task)
