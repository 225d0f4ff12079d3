"""Take one training step with each engine, on two processes: `accelerate launch two_processes.py CHECKPOINT OUT LOSS`.

Three groups of four completions on two processes of two micro-batches of three: groups lie across micro-batches and
processes. Writes what came of it to OUT/<engine>.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from mllm.training.dataset import Row
from mllm.training.run import program
from tests.support.scenes import make_scene
from tests.training.grpo.test_trainer import trainer


def main() -> None:
    """Train twice from the same weights; the first process writes."""
    checkpoint, out, loss = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    for engine in ("stock", "prefix"):
        folder = out / f"scenes-{engine}-{torch.initial_seed()}"
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [make_scene(folder, number, "train", across=1 + number % 2, down=1) for number in range(3)]
        rows = [Row(scene, folder / scene.image) for scene in scenes]
        made = trainer(
            rows, checkpoint, out / engine, engine=engine, loss_type=loss, per_device_train_batch_size=3,
            gradient_accumulation_steps=2, max_steps=1, logging_steps=1, save_strategy="no", learning_rate=0.1,
            optim="sgd",
        )  # fmt: skip
        before = [p.detach().clone() for p in made.model.parameters()]
        made.train()
        moved = sum(
            (p.detach() - old).abs().sum().item() for p, old in zip(made.model.parameters(), before, strict=True)
        )
        info = next(row for row in made.state.log_history if "grad_norm" in row)
        if made.accelerator.is_main_process:
            found = {name: info[name] for name in ("loss", "grad_norm", "reward")}
            found |= {"world": made.accelerator.num_processes, "moved": moved}
            found["how"] = made.accelerator.state.distributed_type.value
            (out / f"{engine}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    program(main)
