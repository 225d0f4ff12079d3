"""Data-parallel pre-training of the pocket model: each process reads its share of a batch, gradients are averaged.

Small layers gain little from many threads; processes share the work better: `torchrun --nproc-per-node 2
recipes/pretrain.py`. Losses are means over what a process reads, so the mean of the gradients is that of the whole
batch, except for the means over image tokens and pointers, whose number differs between processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from mllm.distributed import World

_TIMEOUT = timedelta(hours=2)
"""How long a process waits for another: the main process draws the scenes and runs the checks alone."""


class DataParallel:
    """The processes that `torchrun` started, or a single one; gradients are averaged over gloo."""

    def __init__(self) -> None:
        self.world = World.current()
        if self.world.size > 1:
            distributed.init_process_group("gloo", timeout=_TIMEOUT)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Use the threads of all processes while the block runs; the others wait at the next barrier."""
        own = torch.get_num_threads()
        torch.set_num_threads(own * self.world.size)
        yield
        torch.set_num_threads(own)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.world.size > 1:
            distributed.barrier()

    def average(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Set each gradient to its mean over processes. A missing one counts as zero; missing in all stays None."""
        if self.world.size == 1:
            return
        present = torch.tensor([float(one.grad is not None) for one in parameters])
        gradients = (torch.zeros_like(one) if one.grad is None else one.grad for one in parameters)
        flat = torch.cat([present, *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        present, *sums = flat.split([len(parameters), *(one.numel() for one in parameters)])
        for one, total, count in zip(parameters, sums, present.tolist(), strict=True):
            one.grad = (total / self.world.size).view_as(one) if count else None

    def close(self) -> None:
        """Leave the process group."""
        if self.world.size > 1:
            distributed.destroy_process_group()
