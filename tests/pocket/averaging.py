"""One batch of lessons read by one process or several: `python averaging.py OUT`, or the same under torchrun.

The first process writes the mean gradient, and what became of three parameters that stand beside the model's.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any, cast

import torch

from mllm.pocket import lessons
from mllm.pocket.model import build
from mllm.pocket.pretraining import answer_loss, lesson_batch
from mllm.pocket.together import Together


def main(out: Path) -> None:
    """Read, average, write."""
    together = Together()
    torch.set_num_threads(1)
    model, processor = build(4)
    rng = random.Random(3)
    told = [kind(rng) for kind in (lessons.judge_lesson, lessons.recall_lesson, lessons.copy_lesson) * 2]
    batch = lesson_batch(together.share(told[:4]), cast(Any, None), processor.tokenizer)
    answer_loss(model, batch).backward()
    everywhere, somewhere, nowhere = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    everywhere.grad = torch.full((2,), 1.0 + together.rank)
    somewhere.grad = torch.full((2,), 8.0) if together.first else None
    together.average([*model.parameters(), everywhere, somewhere, nowhere])
    with together.alone():
        threads = torch.get_num_threads()
    if together.first:
        gradient = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
        beside = [everywhere.grad.tolist(), somewhere.grad.tolist(), nowhere.grad]  # pyright: ignore
        torch.save({"gradient": gradient, "beside": beside, "threads": (threads, torch.get_num_threads())}, out)
    together.wait()
    together.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
