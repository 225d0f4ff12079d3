"""GRPO learns: what the pocket base gets right now and then, it gets right nearly always after a few steps on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.scenes import make_data


@pytest.mark.ci
@pytest.mark.timeout(900)
def test_a_few_prompts_are_learned_by_heart(tmp_path: Path) -> None:
    from recipes import rl

    train, _ = make_data(tmp_path / "data", train=4, validation=1)
    ours = {
        "model": "pocket",
        "train": str(train),
        "style": "think",
        "max_tokens_per_sample": 512,
        "dtype": "float32",
        "freeze_vision": True,
        "freeze_projector": True,
        "rewards": {"iou": {"mode": "hit"}},
    }
    theirs = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 6,
        "per_device_train_batch_size": 32,
        "num_generations": 8,
        "max_completion_length": 192,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "temperature": 0.5,
        "logging_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
    }
    (tmp_path / "rl.yaml").write_text(yaml.safe_dump({"fieldmark": ours, **theirs}))
    rl.main(["--config", str(tmp_path / "rl.yaml")])
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    earned = [row["reward"] for row in rows if "reward" in row]
    assert len(earned) == 6 and 0.05 < earned[0] < 0.7, earned
    assert sum(earned[-2:]) / 2 > earned[0] + 0.2, earned
