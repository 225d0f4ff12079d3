"""Rank, world size, barrier and gather for the processes of one run. Importing this module does not import torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from mllm.errors import FieldmarkError

T = TypeVar("T")
BARRIER_TIMEOUT = timedelta(days=7)
"""How long a data program waits for its slowest process; torch's default of 30 minutes is less than a teacher takes."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of one run: this one is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Read what the launcher set for this process."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes shared files and shows progress."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process has reached this call. The launcher stops all processes when one fails."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState(cpu=True, timeout=BARRIER_TIMEOUT).wait_for_everyone()

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's part: every `size`-th item, so that all processes finish at about the same time."""
        return items[self.rank :: self.size]


def gather(rows: Sequence[T]) -> list[T]:
    """Return the rows of every process, in order of rank; without torch.distributed, the rows themselves.

    This is a collective call: every process must make it, or the others block.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return list(rows)
    distributed = torch.distributed
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, list(rows))
    return [row for part in found for row in part]


def main_process_only(work: Callable[[], None]) -> None:
    """Run `work` on the main process only; an error there is raised on every process, so that none blocks."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    error: list[Any] = [None]
    if state.is_main_process:
        try:
            work()
        except FieldmarkError as raised:
            error = [raised]
    if state.num_processes > 1:
        broadcast_object_list(error)
    if error[0] is not None:
        raise error[0]
