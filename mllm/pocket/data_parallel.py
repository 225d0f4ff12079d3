"""Several processes that pre-train one pocket model: each reads its share of every batch, gradients are averaged.

Small layers make little of many threads, and processes share the work better: `torchrun --nproc-per-node 2
recipes/pretrain.py`. Losses are means over what a process reads, so that the mean of their gradients is that of the
whole batch, but for the means over image tokens and looks back, of which processes have unequal numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from mllm.distributed import World

_TIMEOUT = timedelta(hours=2)
"""How long a process waits for another: the first one draws the scenes and runs the checks alone."""


class DataParallel:
    """The processes that `torchrun` started, or this one alone."""

    def __init__(self) -> None:
        self.world = World.current()
        if self.world.size > 1:
            distributed.init_process_group("gloo", timeout=_TIMEOUT)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """This process takes the threads of all of them, which wait for it, while the block runs."""
        own = torch.get_num_threads()
        torch.set_num_threads(own * self.world.size)
        yield
        torch.set_num_threads(own)

    def barrier(self) -> None:
        """Until every process is here."""
        if self.world.size > 1:
            distributed.barrier()

    def average(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Set each gradient to its mean over processes, absent ones counted as zero; absent in all stays absent."""
        if self.world.size == 1:
            return
        there = torch.tensor([float(one.grad is not None) for one in parameters])
        flat = torch.cat([there, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters)])
        distributed.all_reduce(flat)
        there, *sums = flat.split([len(parameters), *(one.numel() for one in parameters)])
        for one, total, known in zip(parameters, sums, there.tolist(), strict=True):
            one.grad = (total / self.world.size).view_as(one) if known else None

    def close(self) -> None:
        """Close the connection to the others."""
        if self.world.size > 1:
            distributed.destroy_process_group()
