"""One run of a data program: its settings, output folder, threads and processes, and what its stages have in common.

All processes must see the same output folder. Any number of them, and any number of stops, gives the same files.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from mllm.data import manifest
from mllm.distributed import World
from mllm.io.jsonl import read_jsonl
from mllm.io.progress import progress
from mllm.synthesis.shards import Shards

Options = TypeVar("Options")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class SynthesisRun(Generic[Options]):
    """What every stage of a data program is given."""

    options: Options
    out: Path
    """Folder of everything the run writes; paths in rows are relative to it."""
    workers: int = 2
    """Threads per process."""
    world: World = World()
    """The processes of the run."""

    def complete(
        self, stages: Callable[[], None], recorded: Mapping[str, Any], *, overwrite: bool = False
    ) -> dict[str, Any]:
        """Run `stages` on every process, unless the output folder is complete already; return its manifest.

        `stages` ends by writing the manifest on the main process; `recorded` are the settings as the folder records
        them; `overwrite` discards what the folder holds. Raises FieldmarkError if the folder belongs to other
        settings, or another run is working in it.
        """
        with manifest.claim(self.out, recorded, overwrite=overwrite) if self.world.is_main else nullcontext():
            self.world.barrier()  # until the main process holds the folder
            if not (self.out / manifest.MANIFEST).exists():
                stages()
                self.world.barrier()
        return manifest.read(self.out)

    def list_rows(
        self, file: Path, rows: Iterable[Any], title: str, make: Callable[[Any], Any] = lambda row: row
    ) -> None:
        """Write the rows that the main process lists to a file; the other processes wait for it.

        `rows` come in the same order each time; a stopped run resumes with those that are missing. `make` completes
        each of them that is written, and keeps its id.
        """
        shards = Shards(file, self.world)
        if shards.finished:
            return
        place: dict[str, int] = {}
        if self.world.is_main:
            with progress(title, None) as step:
                for row in rows:
                    place[row.id] = len(place)
                    if row.id not in shards.done:
                        shards.add(make(row))
                    step()
        shards.close(lambda key: place.get(key, len(place)))  # what is listed no more goes to the end

    def map_rows(
        self,
        file: Path,
        cls: type[R],
        items: Sequence[T],
        make: Callable[[T], R],
        *,
        title: str,
        key: str = "id",
        name: Callable[[T], Hashable] = attrgetter("id"),
    ) -> list[R]:
        """Make one row of each item, divided among processes and threads; return all rows in the order of the items.

        `file` is written when all rows are there; if it exists, its rows are returned. `make` is called from several
        threads. `key` is the field that identifies a row, `name` its value in the row made of an item.
        """
        shards = Shards(file, self.world, key)
        if not shards.finished:
            place = {name(item): number for number, item in enumerate(items)}
            mine = self.world.shard([item for item in items if name(item) not in shards.done])
            with progress(title, len(mine), world=self.world) as step:
                for row in in_order(make, mine, self.workers):
                    shards.add(row)
                    step()
            shards.close(place.__getitem__)
        return list(read_jsonl(file, cls, unique=key))


def in_order(make: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
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
