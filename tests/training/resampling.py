"""Resample on two processes, one of which has nothing to replace: `accelerate launch resampling.py CHECKPOINT OUT`.

A group of four completions on each process; the second prompt's rewards are always equal. Each process writes what it
saw to OUT/<rank>.json, then one step is taken.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from mllm.training.dataset import Row
from mllm.training.grpo.dynamic_sampling import DynamicSampling
from mllm.training.run import program
from tests.support.scenes import make_scene
from tests.training.grpo.test_trainer import trainer


def main() -> None:
    """Draw a batch, look at it, train for a step."""
    checkpoint, out = Path(sys.argv[1]), Path(sys.argv[2])
    folder = out / f"scenes-{os.environ['RANK']}"
    folder.mkdir(parents=True)
    scenes = [make_scene(folder, number, "train", across=1, down=1) for number in (0, 1, 2, 4, 6, 8)]
    made = trainer(
        [Row(scene, folder / scene.image) for scene in scenes], checkpoint, out / "run", per_device_train_batch_size=4,
        steps_per_generation=1, max_steps=1, save_strategy="no", learning_rate=0.1, optim="sgd", loss_type="dapo",
        dynamic_sampling=DynamicSampling("resample", 6),
    )  # fmt: skip
    seen: list[list[bool]] = []
    draw, whole = made._draw, made._generate_and_score_completions

    def noted(inputs: list[dict[str, object]]) -> dict[str, object]:
        found = draw(inputs)
        seen.append(found["advantages"].reshape(-1, 4).ne(0).any(1).tolist())
        return found

    def kept(inputs: list[dict[str, object]]) -> dict[str, object]:
        found = whole(inputs)
        info = {
            "before": seen[0],
            "after": found["advantages"].reshape(-1, 4).ne(0).any(1).tolist(),
            "items": int(found["num_items_in_batch"]),
            "tokens": int(found["completion_mask"].sum()),
            "metrics": {name: v[-1] for name, v in made._metrics["train"].items() if "dynamic" in name},
            "start": _sum(made.model),
        }
        (out / f"{made.accelerator.process_index}.json").write_text(json.dumps(info))
        return found

    made._draw, made._generate_and_score_completions = noted, kept
    made.train()
    file = out / f"{made.accelerator.process_index}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"weights": _sum(made.model)}))


def _sum(model: torch.nn.Module) -> float:
    return sum(parameter.detach().double().abs().sum().item() for parameter in model.parameters())


if __name__ == "__main__":
    program(main)
