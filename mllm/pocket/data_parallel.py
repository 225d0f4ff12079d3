"""Several processes that pre-train one pocket model: each reads its share of every batch, gradients are averaged.

Small layers make little of many threads, and processes share the work better: `torchrun --nproc-per-node 2
recipes/pretrain.py`. Losses are means over what a process reads, so that the mean of their gradients is that of the
whole batch, but for the means over picture tokens and looks back, of which processes have unequal numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")
_PATIENCE = timedelta(hours=2)
"""How long a process waits for another: the first one draws the scenes and runs the checks alone."""


class Together:
    """The processes that `torchrun` started, or this one alone."""

    def __init__(self) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world > 1:
            distributed.init_process_group("gloo", timeout=_PATIENCE)
        self.rank = distributed.get_rank() if self.world > 1 else 0

    @property
    def first(self) -> bool:
        """Whether this process writes files, shows progress and runs the checks."""
        return self.rank == 0

    def share(self, batch: Sequence[T]) -> Sequence[T]:
        """What of a batch, the same in every process, this one reads: every `world`-th."""
        return batch[self.rank :: self.world]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """This process takes the threads of all of them, which wait for it, while the block runs."""
        own = torch.get_num_threads()
        torch.set_num_threads(own * self.world)
        yield
        torch.set_num_threads(own)

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            distributed.barrier()

    def average(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Set each gradient to its mean over processes, absent ones counted as zero; absent in all stays absent."""
        if self.world == 1:
            return
        there = torch.tensor([float(one.grad is not None) for one in parameters])
        flat = torch.cat([there, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters)])
        distributed.all_reduce(flat)
        there, *sums = flat.split([len(parameters), *(one.numel() for one in parameters)])
        for one, total, known in zip(parameters, sums, there.tolist(), strict=True):
            one.grad = (total / self.world).view_as(one) if known else None

    def leave(self) -> None:
        """Close the connection to the others."""
        if self.world > 1:
            distributed.destroy_process_group()
