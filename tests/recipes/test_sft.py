"""recipes/sft.py: the real program on a random-weight pocket model. The ci tests start it as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from mllm.errors import FieldmarkError
from mllm.models import checkpoint, families, parts
from tests.support import hub
from tests.support.scenes import make_captions, make_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_data(tmp_path_factory.mktemp("sft-data"), train=8, validation=3)


@pytest.fixture
def config(tmp_path: Path, data: tuple[Path, Path], pocket_folder: Path) -> Path:
    """Two steps of two rows; flags of a test win over it."""
    ours = {
        "model": str(pocket_folder),
        "train": str(data[0]),
        "validation": str(data[1]),
        "max_tokens_per_sample": 512,
        "dtype": "float32",
        "evaluate": {"samples": 2, "max_new_tokens": 4, "every": 2, "batch_size": 2},
    }
    theirs = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_steps": 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
    }
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump({"fieldmark": ours, **theirs}))
    return path


def train(config: Path, *flags: str) -> Path:
    from recipes import sft

    sft.main(["--config", str(config), *flags])
    return config.parent / "out"


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.ci
def test_packed_rows_train_as_padded_ones(config: Path, tmp_path: Path) -> None:
    """The same batches, padded and packed: the same losses and counts of tokens, step by step."""
    info: dict[str, list[dict[str, Any]]] = {}
    for packing in ("false", "true"):
        out = tmp_path / packing
        flags = ["--pack", packing, "--output_dir", str(out), "--save_strategy", "no"]
        train(config, *flags, "--per_device_train_batch_size", "4")
        info[packing] = [row for row in journal(out) if "loss" in row]
    for padded, packed in zip(info["false"], info["true"], strict=True):
        assert packed["loss"] == pytest.approx(padded["loss"], rel=1e-4)
        assert packed["grad_norm"] == pytest.approx(padded["grad_norm"], rel=1e-3)
        assert packed["num_tokens"] == padded["num_tokens"]
        assert 0 <= packed["packing/padding_saved"] < 1 and "packing/padding_saved" not in padded


def test_a_run_leaves_weights_best_checkpoints_and_journal(config: Path, pocket_folder: Path) -> None:
    import torch

    out = train(config)
    for folder in (out, out / "best", out / "checkpoint-1", out / "checkpoint-2"):
        assert families.read_convention(folder).prompt == "think"
        assert checkpoint.open_checkpoint(folder).family.name == "pocket"
    card = ModelCard.load(out / "best" / "README.md")
    assert card.data["model_name"] == out.name and card.data["eval_results"]
    assert "| Acc@0.5 of generated answers |" in card.text and "SHA-256" in card.text
    assert ModelCard.load(out / "README.md").data["tags"] == ["fieldmark", "pocket", "sft", "visual-grounding"]
    steps = {key: [row["step"] for row in journal(out) if key in row] for key in ("loss", "eval/acc")}
    assert steps == {"loss": [1, 2], "eval/acc": [2]}
    assert json.loads((out / "best" / "score.json").read_text())["step"] == 2
    old, new = weights(pocket_folder), weights(out)
    changed = {parts.part_of(name) for name in new if not torch.equal(new[name], old[name])}
    assert changed == {"llm"}, "the vision tower and the projector are frozen by default"
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings["style"] == "think"
    # The same command again: nothing is left to do.
    before = (out / "model.safetensors").stat().st_mtime_ns
    train(config)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    # Another setting: not silently gone on with.
    with pytest.raises(FieldmarkError, match="another style"):
        train(config, "--style", "direct")


@pytest.mark.ci
def test_an_adapter_run_saves_what_loads_on_its_base(config: Path, pocket_folder: Path) -> None:
    import torch

    out = train(config, "--lora.r", "4", "--style", "direct", "--visual_tokens", "40")
    assert not (out / "model.safetensors").exists()
    opened = checkpoint.open_checkpoint(out)
    assert (opened.base, opened.adapter) == (str(pocket_folder), str(out))
    assert opened.convention.prompt == "direct" and opened.convention.budget.max_pixels == 40 * 32 * 32
    saved = json.loads((out / "processor_config.json").read_text())["image_processor"]
    assert saved["size"]["longest_edge"] == 40 * 32 * 32, "who loads it without us gets the same images"
    loaded = checkpoint.load(opened)
    assert any(weight.abs().sum() > 0 for name, weight in loaded.model.named_parameters() if "lora_B" in name)
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        assert not torch.equal(
            loaded.model(input_ids=ids).logits, checkpoint.load(pocket_folder).model(input_ids=ids).logits
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_tokens_per_sample", "100"], "8 of 8 rows do not fit into max_tokens_per_sample = 100.*train-000"),
        (["--style", "loud"], "fieldmark.style"),
        (["--lerning_rate", "1"], "did you mean '--learning_rate'"),
        (["--max_length", "100"], "max_length cannot be changed: rows are never truncated"),
        (["--model", "nowhere/at/all"], "no such checkpoint folder"),
        (["--train", "gone.jsonl"], "gone.jsonl: no such record file"),
        (["--resume", "gone"], "not a complete checkpoint"),
        (["--learning_rate", "high"], "learning_rate"),
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


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from mllm.config import Settings
    from recipes import sft

    sft.main(["--help"])
    output = capsys.readouterr().out
    assert "accelerate launch recipes/sft.py" in output and "SFTConfig" in output
    assert all(f"--{name} " in output for name in Settings.model_fields)


@pytest.mark.ci
def test_nan_ends_the_run(config: Path) -> None:
    with pytest.raises(FieldmarkError, match="the loss is"):
        train(config, "--learning_rate", "1e30", "--max_steps", "8", "--max_grad_norm", "0", "--validation", "null")


def command(config: Path, *flags: str, processes: int = 1) -> list[str]:
    """The recipe as a user starts it; with two processes through accelerate's own launcher."""
    recipe = [str(ROOT / "recipes" / "sft.py"), "--config", str(config), *flags]
    if processes == 1:
        return [sys.executable, *recipe]
    accelerate = ROOT / "accelerate_configs" / "cpu_two_processes.yaml"
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(accelerate), *recipe]


ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(*parts: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        parts, env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def finish(*parts: str) -> str:
    done = subprocess.run(parts, env=ENV, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.ci
def test_captions_are_measured_in_their_bags(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "captions"
    files = [str(make_captions(folder, split, families=2, size=3)) for split in ("train", "validation")]
    flags = ["--train", files[0], "--validation", files[1], "--evaluate.samples", "5", "--evaluate.max_new_tokens", "8"]
    out = train(config, *flags)
    (row,) = [row for row in journal(out) if "eval/r1" in row]
    assert row["step"] == 2 and row["eval/samples"] == 5 and 0 <= row["eval/r1"] <= 1
    assert row["eval/chance"] == pytest.approx((3 / 3 + 2 / 2) / 5), "the second family lost one to evaluate.samples"
    assert {"eval/precision", "eval/recall", "eval/words", "eval/truncated"} <= set(row)
    assert json.loads((out / "best" / "score.json").read_text())["eval/r1"] == row["eval/r1"]


@pytest.mark.ci
@pytest.mark.timeout(1800)
def test_killed_after_a_checkpoint_it_goes_on_to_the_same_weights(config: Path, tmp_path: Path) -> None:
    """The run that is killed is a process of its own; the undisturbed one and the continuation run in this one."""
    import torch

    flags = ["--max_steps", "6", "--save_steps", "2", "--save_total_limit", "9"]
    train(config, *flags, "--output_dir", str(tmp_path / "whole"))
    broken = tmp_path / "broken"
    child = start(*command(config, *flags, "--output_dir", str(broken)))
    deadline = time.monotonic() + 600
    while not (broken / "checkpoint-2" / "fieldmark.json").is_file():
        assert child.poll() is None and time.monotonic() < deadline, "it ended, or hung, before its first checkpoint"
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not (broken / "fieldmark.json").is_file(), "the run was over before it was killed"
    first = (broken / "checkpoint-2" / "fieldmark.json").stat().st_mtime_ns
    train(config, *flags, "--output_dir", str(broken))
    assert (broken / "checkpoint-2" / "fieldmark.json").stat().st_mtime_ns == first, "it started again from step 0"
    expected, found = weights(tmp_path / "whole"), weights(broken)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [row["step"] for row in journal(broken) if "loss" in row] == [1, 2, 3, 4, 5, 6]


@pytest.mark.ci
@pytest.mark.timeout(1800)
def test_ctrl_c_saves_and_says_how_to_go_on(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    child = start(*command(config, "--max_steps", "500", "--save_steps", "500", "--validation", "null"))
    deadline = time.monotonic() + 600
    while not (out / "log.jsonl").is_file() or not (out / "log.jsonl").read_text():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=600)
    assert child.returncode == 130, output[-3000:]
    assert "stopped and saved at step" in output and output.endswith("stopped; the same command continues\n")
    (folder,) = out.glob("checkpoint-*")
    assert families.read_convention(folder).family == "pocket"
    assert not (out / "fieldmark.json").exists(), "a stopped run leaves nothing that looks finished"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_train_one_model(config: Path) -> None:
    finish(*command(config, processes=2))
    out = config.parent / "out"
    assert json.loads((out / "run.json").read_text())["world_size"] == 2
    assert (out / "checkpoint-2" / "rng_state_1.pth").is_file()
    assert checkpoint.open_checkpoint(out / "best").family.name == "pocket"
    (row,) = [row for row in journal(out) if "eval/acc" in row]
    assert row["eval/samples"] == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_end_together_on_a_mistake(config: Path) -> None:
    done = subprocess.run(
        command(config, "--max_tokens_per_sample", "100", processes=2),
        env=ENV,
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("error: 8 of 8 rows do not fit") == 1


@pytest.mark.ci
def test_what_is_pushed_is_what_others_need(config: Path) -> None:
    """The real client against a hub on loopback: repository, then weights with convention and card in one commit."""
    with hub.serving() as served:
        push = ["--push_to_hub", "true", "--hub_model_id", "me/birds", "--hub_strategy", "end"]
        done = subprocess.run(
            command(config, *push), env=ENV | hub.environment(served), text=True, capture_output=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert [one["name"] for one in served.made] == ["birds"] and "End of training" in served.messages
        pushed = served.files["me/birds"]
    assert {"model.safetensors", "fieldmark.json", "README.md", "best/fieldmark.json"} <= pushed.keys()
    assert not [name for name in pushed if name.startswith("checkpoint-")]
    assert pushed["model.safetensors"] == (config.parent / "out" / "model.safetensors").read_bytes()
    assert ModelCard(pushed["README.md"].decode()).data["tags"] == ["fieldmark", "pocket", "sft", "visual-grounding"]
