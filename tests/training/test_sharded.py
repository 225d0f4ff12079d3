"""DeepSpeed and FSDP for real, on two CPU processes: trained in shards, saved whole, gone on with, loaded anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mllm
from mllm.models import checkpoint
from mllm.training import merge
from tests.support.scenes import make_data
from tests.training.sharded import TOKENS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Things are asked for by marks: by name the base's answers all earn the same, and nothing would be learned."""
    return make_data(tmp_path_factory.mktemp("sharded-data"), train=8, validation=2, by_marks=True)


def recipe(kind: str, data: tuple[Path, Path], folder: Path) -> Path:
    """A recipe of three steps of four rows (SFT) or two prompts of four answers (GRPO) on two processes."""
    ours: dict[str, Any] = {"model": "pocket", "train": str(data[0]), "max_tokens_per_sample": 512, "dtype": "float32"}
    ours["style"] = "direct"
    theirs: dict[str, Any] = {
        "output_dir": str(folder / "out"), "max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 1e-3,
        "logging_steps": 1, "save_steps": 1, "save_total_limit": 5, "gradient_checkpointing": False, "bf16": False,
    }  # fmt: skip
    if kind == "rl":
        ours |= {"rewards": {"iou": {"mode": "raw"}, "format": {"style": "direct"}}}
        theirs |= {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 28}
    else:
        ours |= {"validation": str(data[1]), "evaluate": {"samples": 2, "max_new_tokens": 4, "every": 3}}
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump({"fieldmark": ours, **theirs}))
    return path


def launch(config: str, *words: str, env: dict[str, str] | None = None) -> str:
    """Start a program under an accelerate configuration; fail with its output where it does not end well."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ROOT / "accelerate_configs" / f"{config}.yaml"), *words]
    clean = {name: value for name, value in os.environ.items() if name not in ("ACCELERATE_USE_CPU", "DS_ACCELERATOR")}
    env = {**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **(env or {})}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


def trained(kind: str, config: str, path: Path, *flags: str) -> dict[str, Any]:
    """Run the recipe and return what tests/training/sharded.py wrote down."""
    out = path.parent / "told.pt"
    program = str(ROOT / "tests" / "training" / "sharded.py")
    output = launch(config, program, kind, str(out), "--config", str(path), *flags)
    assert "built successfully" not in output, "nothing may need a compiler"
    return torch.load(out, weights_only=True)


def says(folder: Path) -> torch.Tensor:
    """The logits of a saved model, loaded as anybody would."""
    loaded = mllm.load(str(folder)).loaded
    with torch.no_grad():
        return loaded.model(input_ids=TOKENS).logits


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def round_trip(kind: str, stage: int, lora: bool, data: tuple[Path, Path], folder: Path) -> None:
    """Train, save, merge: everywhere the same model as the one that was in memory."""
    path, out = recipe(kind, data, folder), folder / "out"
    flags = ["--lora.r", "4"] if lora else []
    info = trained(kind, f"cpu_zero{stage}", path, *flags)
    assert (info["world"], info["how"], info["stage"]) == (2, "DEEPSPEED", stage)
    steps = [row for row in journal(out) if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3]
    assert max(row["grad_norm"] for row in steps) > 0
    assert (out / "checkpoint-3" / "latest").is_file(), "DeepSpeed saved no state: it did not train"
    before = says(Path(checkpoint.base_and_adapter("pocket")[0]))
    assert (info["logits"] - before).abs().max() > 1e-3, "nothing was learned"
    for saved in (out, out / "checkpoint-3"):
        torch.testing.assert_close(says(saved), info["logits"], rtol=0, atol=1e-5)
    done = merge.merge(out / "checkpoint-3", folder / "merged", masters=True)
    assert done.shards and done.adapter == lora
    assert [path.name for path in (folder / "merged").iterdir() if path.suffix in (".pt", ".bin", ".pth")] == []
    torch.testing.assert_close(says(folder / "merged"), info["logits"], rtol=0, atol=1e-4 if lora else 1e-5)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("stage", "kind", "lora"),
    [
        pytest.param(2, "sft", False, marks=pytest.mark.slow),
        pytest.param(2, "rl", True, marks=pytest.mark.slow),
        pytest.param(3, "sft", True, marks=pytest.mark.slow),
        pytest.param(3, "rl", False, marks=pytest.mark.ci),
    ],
)
def test_sharded_training_ends_in_plain_weights(
    stage: int, kind: str, lora: bool, data: tuple[Path, Path], tmp_path: Path
) -> None:
    round_trip(kind, stage, lora, data, tmp_path)


@pytest.mark.ci
@pytest.mark.timeout(1800)
def test_fsdp_ends_in_plain_weights(data: tuple[Path, Path], tmp_path: Path) -> None:
    """Each process holds half of the weights, and what is saved is whole and the model that was trained."""
    path, out = recipe("sft", data, tmp_path), tmp_path / "out"
    info = trained("sft", "cpu_fsdp", path)
    assert (info["world"], info["how"]) == (2, "FSDP") and 0.45 < info["share"] < 0.55
    before = says(Path(checkpoint.base_and_adapter("pocket")[0]))
    assert (info["logits"] - before).abs().max() > 1e-3, "nothing was learned"
    for saved in (out, out / "checkpoint-3"):
        torch.testing.assert_close(says(saved), info["logits"], rtol=0, atol=1e-5)
    kept = mllm.load(str(out)).loaded.model.state_dict()
    assert info["weights"].keys() == kept.keys()
    for name, value in kept.items():
        torch.testing.assert_close(value, info["weights"][name], rtol=0, atol=0)
    assert json.loads((out / "run.json").read_text())["world_size"] == 2
    assert (out / "checkpoint-3" / "rng_state_1.pth").is_file(), "each process keeps its own random numbers"
    (row,) = [row for row in journal(out) if "eval/acc" in row]
    assert row["step"] == 3 and row["eval/samples"] == 2
    torch.testing.assert_close(says(out / "best"), info["logits"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "lora"), [("sft", True), ("rl", False), ("rl", True)])
def test_fsdp_of_adapters_and_of_rewards(kind: str, lora: bool, data: tuple[Path, Path], tmp_path: Path) -> None:
    info = trained(kind, "cpu_fsdp", recipe(kind, data, tmp_path), *(["--lora.r", "4"] if lora else []))
    assert (info["world"], info["how"]) == (2, "FSDP") and info["share"] < 0.55 and max(info["grad_norm"]) > 0
    torch.testing.assert_close(says(tmp_path / "out"), info["logits"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fsdp_takes_the_steps_of_zero3(data: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "zero").mkdir()
    info = trained("sft", "cpu_fsdp", recipe("sft", data, tmp_path))
    other = trained("sft", "cpu_zero3", recipe("sft", data, tmp_path / "zero"))
    assert info["loss"] == pytest.approx(other["loss"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("config", ["cpu_zero2", "cpu_zero3", "cpu_fsdp"])
@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_sharded_training_goes_on(config: str, kind: str, lora: bool, data: tuple[Path, Path], tmp_path: Path) -> None:
    """Stopped after two steps and gone on with: the same losses as in one go."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    flags = ["--lora.r", "4"] if lora else []
    info = trained(kind, config, recipe(kind, data, whole), "--lr_scheduler_type", "constant", *flags)
    assert info["world"] == 2
    path = recipe(kind, data, parts)
    path.write_text(path.read_text() + "lr_scheduler_type: constant\n")  # more steps must not mean other steps
    trained(kind, config, path, "--max_steps", "2", *flags)
    again = trained(kind, config, path, *flags)
    torch.testing.assert_close(again["logits"], info["logits"], rtol=0, atol=1e-5)
    one, other = ([row for row in journal(folder / "out") if "loss" in row] for folder in (whole, parts))
    assert [row["step"] for row in one] == [row["step"] for row in other] == [1, 2, 3]
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in one] == pytest.approx([row[name] for row in other], abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_shards_alone_become_weights(data: tuple[Path, Path], tmp_path: Path) -> None:
    """Without `zero3_save_16bit_model` a checkpoint holds shards and no weights: `fieldmark merge` joins them."""
    config = yaml.safe_load((ROOT / "accelerate_configs" / "cpu_zero3.yaml").read_text())
    config["deepspeed_config"]["zero3_save_16bit_model"] = False
    (tmp_path / "shards.yaml").write_text(yaml.safe_dump(config))
    path = recipe("sft", data, tmp_path)
    info = trained("sft", str(tmp_path / "shards"), path)
    last = tmp_path / "out" / "checkpoint-3"
    assert info["world"] == 2 and not list(last.glob("*.safetensors"))
    merge.merge(last, tmp_path / "merged")
    torch.testing.assert_close(says(tmp_path / "merged"), info["logits"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_deepspeed_is_not_quietly_something_else(data: tuple[Path, Path], tmp_path: Path) -> None:
    path = recipe("sft", data, tmp_path)
    with pytest.raises(AssertionError, match="error: DeepSpeed was configured, but this would be MULTI_CPU"):
        launch("cpu_zero2", str(ROOT / "recipes" / "sft.py"), "--config", str(path), "--use_cpu", "True")
