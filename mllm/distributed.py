"""What all processes of a run have, where there are several; what this one has, where there is one. Loads no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def all_ranks(rows: Sequence[T]) -> list[T]:
    """Return the rows of every process, in order of rank. One collective call: every process has to make it.

    Whoever calls it inside a reward does so first thing and without a condition, or processes wait for one another.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return list(rows)
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, list(rows))
    return [row for part in found for row in part]
