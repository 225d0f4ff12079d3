"""recipes/rl.py: TRL's GRPO on a random-weight pocket model, with our rewards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mllm.errors import FieldmarkError
from mllm.io.jsonl import read_jsonl
from mllm.models import checkpoint, families
from mllm.records import Completion
from tests.support.scenes import make_captions, make_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_data(tmp_path_factory.mktemp("rl-data"), train=8, validation=3)


@pytest.fixture
def config(tmp_path: Path, data: tuple[Path, Path], pocket_folder: Path) -> Path:
    ours = {
        "model": str(pocket_folder),
        "train": str(data[0]),
        "validation": str(data[1]),
        "max_tokens_per_sample": 512,
        "dtype": "float32",
        "rewards": {"format": {"weight": 0.5}, "iou": {"mode": "power", "gamma": 2.0}},
        "evaluate": {"samples": 2, "max_new_tokens": 4, "every": 2, "batch_size": 2},
    }
    theirs = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 6,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_steps": 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
    }
    path = tmp_path / "rl.yaml"
    path.write_text(yaml.safe_dump({"fieldmark": ours, **theirs}))
    return path


def train(config: Path, *flags: str) -> Path:
    from recipes import rl

    rl.main(["--config", str(config), *flags])
    return config.parent / "out"


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (
            ("--per_device_train_batch_size", "32"),
            "a generation batch has 16 prompts, and there are only 8 rows",
        ),
        (("--dynamic_sampling", "drop", "--loss_type", "grpo"), "set loss_type: dapo"),
    ],
)
def test_a_run_that_could_not_work_ends_before_the_weights_are_read(
    flags: tuple[str, ...], named: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mllm.training.run.load_model", lambda *_: pytest.fail("the weights were read"))
    with pytest.raises(FieldmarkError, match=named):
        train(config, *flags)
    assert not (config.parent / "out" / "model.safetensors").exists()


@pytest.mark.ci
def test_a_run_leaves_weights_best_and_rewards_in_the_journal(config: Path) -> None:
    out = train(config, "--evaluate.at_start", "true")
    for folder in (out, out / "best", out / "checkpoint-2"):
        assert families.read_convention(folder).prompt == "think"
    steps = [row for row in journal(out) if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2]
    for name in ("rewards/format/mean", "rewards/iou/mean", "iou/unread", "format/tags", "frac_reward_zero_std"):
        assert name in steps[0]
    assert steps[0]["unread/no answer tag"] == 1.0  # random weights say nothing readable
    evaluated = [row["step"] for row in journal(out) if "eval/acc" in row]
    assert evaluated == [0, 2]
    for step in evaluated:
        answered = [one.sample_id for one in read_jsonl(out / "validation" / f"step-{step}.jsonl", Completion)]
        assert len(answered) == next(row for row in journal(out) if row.get("step") == step)["eval/samples"]
    assert json.loads((out / "best" / "score.json").read_text())["step"] == 2, "the start does not count as a result"


@pytest.mark.ci
def test_an_adapter_is_trained_further(config: Path, tmp_path: Path) -> None:
    from mllm.config import Lora

    start = checkpoint.load(
        checkpoint.open_checkpoint(json.loads(json.dumps(yaml.safe_load(config.read_text())))["fieldmark"]["model"]),
        lora=Lora(r=2),
    )
    start.model.save_pretrained(tmp_path / "adapter")
    families.write_convention(tmp_path / "adapter", start.convention)
    out = train(config, "--model", str(tmp_path / "adapter"), "--beta", "0.1")
    opened = checkpoint.open_checkpoint(out)
    assert opened.adapter == str(out) and opened.base == checkpoint.open_checkpoint(tmp_path / "adapter").base
    assert "kl" in next(row for row in journal(out) if "reward" in row)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rewards.iuo.weight", "1"], "unknown reward 'iuo'.*mean 'iou'"),
        (["--rewards.iou.tao", "0.5"], "reward 'iou' has no field 'tao'"),
        (["--style", "direct"], "rewards.format.style is not the prompt's style, 'direct'"),
        (["--rewards.iou.mode", "soft"], "mode must be one of raw, threshold, power"),
        (["--rewards", "{}"], "no rewards: name at least one"),
        (["--max_completion_length", "500"], "8 of 8 rows.*with 500 tokens kept free"),
        (["--model", "runs/pocket/nowhere"], "accelerate launch recipes/sft.py"),
    ],
)
def test_mistakes_are_found_before_the_weights_are_read(
    config: Path, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(checkpoint, "load", never)
    with pytest.raises(FieldmarkError, match=message):
        train(config, *flags)


@pytest.mark.ci
@pytest.mark.timeout(900)
def test_a_few_prompts_are_learned_by_heart(config: Path, tmp_path: Path) -> None:
    """What the pocket base gets right now and then, it gets right more often after twelve steps on it: GRPO learns."""
    train_file, _ = make_data(tmp_path / "data", train=4, validation=1)
    values = yaml.safe_load(config.read_text())
    values["fieldmark"] |= {
        "model": "pocket",
        "train": str(train_file),
        "validation": None,
        "style": "direct",
        "freeze_vision": True,
        "freeze_projector": True,
        "rewards": {"iou": {"mode": "hit"}},
    }
    values |= {"max_steps": 12, "per_device_train_batch_size": 32, "num_generations": 8, "max_completion_length": 24}
    values |= {"learning_rate": 3e-4, "lr_scheduler_type": "constant", "temperature": 1.0, "save_steps": 12}
    config.write_text(yaml.safe_dump(values))
    earned = [row["reward"] for row in journal(train(config)) if "reward" in row]
    assert len(earned) == 12 and 0.05 < earned[0] < 0.7, earned
    assert sum(earned[-2:]) / 2 > earned[0] + 0.2, earned


@pytest.mark.ci
def test_bags_grow_and_a_stopped_run_goes_on_in_the_same_order(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bags, captions and rewards at every step, whether a run was stopped within an epoch or not."""
    from mllm.rewards import self_retrieval

    batches: list[list[tuple[str, str | None]]] = []
    score = self_retrieval.Reward.__call__

    def watched(self: Any, samples: Any, completions: Any) -> Any:
        batches.append([(sample.id, sample.bag) for sample in samples])
        return score(self, samples, completions)

    monkeypatch.setattr(self_retrieval.Reward, "__call__", watched)
    train_file = make_captions(tmp_path / "captions", "train", families=3, size=3)
    values = yaml.safe_load(config.read_text())
    values["fieldmark"] |= {
        "train": str(train_file),
        "validation": None,
        "rewards": {"self_retrieval": {"over": "bag_batch"}, "length": {"weight": 0.1}},
        "bags": {"schedule": [[1, 2], [1, 3]], "saturation": 1.0},
    }
    # Three images a batch, three batches an epoch.
    values |= {"max_steps": 6, "per_device_train_batch_size": 6, "lr_scheduler_type": "constant"}
    config.write_text(yaml.safe_dump(values))
    straight = journal(train(config, "--output_dir", str(tmp_path / "straight")).parent / "straight")
    whole, batches[:] = list(batches), []
    sizes = [row["bags/size"] for row in straight if "bags/size" in row]
    assert sizes == [2, 2, 2, 3, 3, 3] and len(whole) == 6
    train(config, "--max_steps", "4")  # stops within the second epoch
    train(config)
    assert batches == whole
    assert sum(bag is None for _, bag in whole[0]) == 2 and not any(bag is None for _, bag in whole[3])
    gone_on = {row["step"]: row for row in journal(config.parent / "out") if "reward" in row}
    for row in straight:
        if "reward" in row:
            for name in ("reward", "bags/size", "self_retrieval/log_p", "grad_norm"):
                assert gone_on[row["step"]][name] == pytest.approx(row[name], rel=1e-5), (row["step"], name)
    state = json.loads((tmp_path / "out" / "checkpoint-6" / "run_state_bags.json").read_text())
    assert [row["captions"] for row in state["counts"]] == [12, 18]
    with pytest.raises(FieldmarkError, match="another bags"):
        train(config, "--bags.saturation", "0.5", "--max_steps", "8")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_train_one_model_and_go_on(config: Path) -> None:
    accelerate = ROOT / "accelerate_configs" / "cpu_two_processes.yaml"
    recipe = [str(ROOT / "recipes" / "rl.py"), "--config", str(config)]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(accelerate), *recipe]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    out = config.parent / "out"
    for steps, expected in (("2", [1, 2]), ("3", [1, 2, 3])):
        done = subprocess.run([*launch, "--max_steps", steps], env=env, text=True, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        assert [row["step"] for row in journal(out) if "reward" in row] == expected
    assert json.loads((out / "run.json").read_text())["world_size"] == 2
    assert (out / "checkpoint-3" / "rng_state_1.pth").is_file()
