"""One batch of tasks read by one process or several: `python averaging.py OUT`, or the same under torchrun.

The first process writes the mean gradient, and what became of three parameters that stand beside the model's.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any, cast

import torch

from mllm.pocket import pretraining_tasks
from mllm.pocket.model import build
from mllm.pocket.pretraining import answer_loss, task_batch
from mllm.pocket.pretraining_run import DataParallel


def main(out: Path) -> None:
    """Read, average, write."""
    parallel = DataParallel()
    torch.set_num_threads(1)
    model, processor = build(4)
    rng = random.Random(3)
    info = [
        kind(rng)
        for kind in (pretraining_tasks.judge_task, pretraining_tasks.recall_task, pretraining_tasks.copy_task) * 2
    ]
    batch = task_batch(parallel.world.shard(info[:4]), cast(Any, None), processor.tokenizer)
    answer_loss(model, batch).backward()
    everywhere, somewhere, nowhere = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    everywhere.grad = torch.full((2,), 1.0 + parallel.world.rank)
    somewhere.grad = torch.full((2,), 8.0) if parallel.world.is_main else None
    parallel.average([*model.parameters(), everywhere, somewhere, nowhere])
    with parallel.alone():
        threads = torch.get_num_threads()
    if parallel.world.is_main:
        gradient = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
        beside = [everywhere.grad.tolist(), somewhere.grad.tolist(), nowhere.grad]  # pyright: ignore
        torch.save({"gradient": gradient, "beside": beside, "threads": (threads, torch.get_num_threads())}, out)
    parallel.barrier()
    parallel.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
