"""Recipes read for a machine that is not there, and followed back to published weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm.errors import ConfigError, FieldmarkError
from mllm.training import arguments, recipe

from trl import GRPOConfig  # isort: skip  (after mllm.training, which switches its telemetry off)

ROOT = Path(__file__).resolve().parents[2]
KARL = ROOT / "recipes" / "kvg_karl_qwen3vl_8b.yaml"


def test_trl_sees_the_batch_of_all_processes() -> None:
    read = recipe.read(KARL, processes=8)
    assert (read.kind, read.per_device, read.args.generation_batch_size, read.args.steps_per_generation) == (
        "rl",
        2,
        32,
        2,
    )
    assert read.bf16 and not read.args.bf16  # as the file says; this process has no GPU


def test_another_machine_is_not_told_what_this_cpu_lacks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mllm.models.cpu_kernels.computes_bfloat16", lambda: False)
    recipe.read(KARL, processes=8)
    assert not caplog.records
    arguments.read(["--config", str(KARL), "--use_cpu", "True"], KARL, GRPOConfig)
    assert ["bf16 disabled" in record.message for record in caplog.records] == [True]


def test_a_batch_that_only_many_processes_make_whole() -> None:
    """One row a process is no group of four on one process, and two groups on eight."""
    flags = ["--per_device_train_batch_size", "1", "--steps_per_generation=1"]
    assert recipe.read(KARL, flags, processes=8).args.generation_batch_size == 8
    with pytest.raises(ConfigError, match=r"1 rows a process x 1 processes x 1 steps = 1 answers.*to 4 or 8"):
        recipe.read(KARL, flags, processes=1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size must be a whole number from 1, got 0"),
        (["--num_generations", "x"], "num_generations must be a whole number from 1, got 'x'"),
        (["--generation_batch_size", "30"], "multiple of num_generations = 4"),
    ],
)
def test_batches_without_meaning_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe.read(KARL, flags, processes=8)


def test_which_program_a_file_is_for(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("fieldmark: {model: pocket}\noutput_dir: x\n")
    assert recipe.kind_of(file) == "sft"
    assert recipe.kind_of(file, ["--rewards.iou.weight", "1"]) == "rl"
    file.write_text("fieldmark: {model: pocket}\noutput_dir: x\nnum_generations: 4\n")
    assert recipe.kind_of(file) == "rl"


def test_weights_are_followed_back() -> None:
    first = recipe.origin(recipe.read(KARL, processes=8))
    assert (first.model, first.visual_tokens) == ("Qwen/Qwen3-VL-8B-Instruct", 392)
    adapter = recipe.origin(recipe.read(ROOT / "recipes" / "one_card_qwen2vl_2b_rl.yaml"))
    assert adapter.model == "Qwen/Qwen2-VL-2B-Instruct" and adapter.lora is not None and adapter.lora.r == 32


def test_a_folder_that_nobody_makes_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("fieldmark: {model: runs/a/best}\noutput_dir: runs/b\n")
    with pytest.raises(FieldmarkError, match="runs/a/best does not exist"):
        recipe.origin(recipe.read(file))
    file.write_text("fieldmark: {model: runs/b/best}\noutput_dir: runs/b\n")  # made by itself: that is no beginning
    with pytest.raises(FieldmarkError, match="runs/b/best does not exist"):
        recipe.origin(recipe.read(file))


def test_the_header_names_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert recipe.accelerate_file(KARL) == Path("accelerate_config.yaml")
    assert recipe.accelerate_file(ROOT / "recipes" / "sft.yaml") is None
    monkeypatch.chdir(tmp_path)
    assert recipe.accelerate_file(KARL) == ROOT / "accelerate_config.yaml"
    file = tmp_path / "x.yaml"
    file.write_text("# accelerate launch --config_file gone.yaml recipes/sft.py\n")
    with pytest.raises(ConfigError, match="its header names gone.yaml, which does not exist"):
        recipe.accelerate_file(file)
