"""Settings: nothing is ignored, and every error says where and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm.config import Lora, Settings
from mllm.errors import ConfigError
from mllm.io.files import program_folder
from mllm.training import config_file

TRL = ("output_dir", "learning_rate", "max_steps", "bf16", "gradient_checkpointing")


def file(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_one_file_holds_both_and_flags_win(tmp_path: Path) -> None:
    path = file(tmp_path, "fieldmark:\n  model: here\n  lora: {r: 8}\nlearning_rate: 1.0e-5\noutput_dir: out\n")
    flags = ["--lora.alpha", "4", "--train", "a.jsonl", "b.jsonl", "--learning_rate", "2e-5", "--style=direct"]
    run = config_file.read([*flags, "--rewards.iou.weight", "2", "--no_gradient_checkpointing"], path, TRL)
    assert run.settings.model == "here"
    assert run.settings.lora == Lora(r=8, alpha=4)
    assert run.settings.train == (Path("a.jsonl"), Path("b.jsonl"))
    assert run.settings.style == "direct"
    assert run.settings.rewards == {"iou": {"weight": 2}}
    assert run.trl == {"learning_rate": 1e-5, "output_dir": "out"}
    assert run.flags == ("--learning_rate", "2e-5", "--no_gradient_checkpointing")


def test_config_flag_replaces_the_default(tmp_path: Path) -> None:
    path = file(tmp_path, "fieldmark: {model: mine}\n")
    for flags in (["--config", str(path)], [f"--config={path}"]):
        assert config_file.read(flags, Path("nowhere.yaml"), TRL).settings.model == "mine"


def test_flags_read_as_yaml_does(tmp_path: Path) -> None:
    path = file(tmp_path, "fieldmark: {}\n")
    flags = [
        "--lora.dropout",
        "1e-1",
        "--lora.parts",
        "[llm, vision]",
        "--freeze_vision",
        "false",
        "--validation",
        "null",
    ]
    settings = config_file.read(flags, path, TRL).settings
    assert settings.lora is not None and settings.lora.dropout == 0.1
    assert settings.lora.parts == ("llm", "vision")
    assert settings.freeze_vision is False and settings.validation is None


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("fieldmark: {modle: x}\n", [], "run.yaml: unknown key 'modle': did you mean 'model'"),
        ("fieldmark: {lora: {rank: 4}}\n", [], "unknown key 'lora.rank': did you mean 'lora.r'"),
        ("fieldmark: {evaluate: {evry: 4}}\n", [], "'evaluate.evry': did you mean 'evaluate.every'"),
        ("lerning_rate: 1\n", [], "unknown key 'lerning_rate': did you mean 'learning_rate'"),
        ("train: x.jsonl\n", [], "unknown key 'train': a key of the `fieldmark:` section; move it there"),
        ("fieldmark: {}\n", ["--styel", "think"], "the command line: unknown key '--styel': did you mean '--style'"),
        ("fieldmark: {style: loud}\n", [], "fieldmark.style: .*'direct' or 'think'.*loud"),
        ("fieldmark: {lora: {r: 0}}\n", [], "fieldmark.lora.r: .*greater than or equal to 1"),
        ("fieldmark: {quantize: 4bit}\n", [], "needs a lora section"),
        ("fieldmark: {freeze_llm: true}\n", [], "nothing would be trained"),
        ("fieldmark: {min_visual_tokens: 9, visual_tokens: 4}\n", [], r"min_visual_tokens \(9\) is above"),
        ("fieldmark: {rewards: {iou: {weight: high}}}\n", [], "rewards.iou.weight must be a number"),
        ("fieldmark: [a]\n", [], "must be a section"),
        ("fieldmark: {a: [}\n", [], "broken YAML"),
        ("- a\n", [], "must be a mapping of keys to values"),
        ("fieldmark: {}\n", ["--config"], "--config needs a value"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_file.read(flags, file(tmp_path, text), TRL)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml: no such config file"):
        config_file.read([], Path("nowhere.yaml"), TRL)
    with pytest.raises(ConfigError, match="sft_drect: no such config file; did you mean the recipe sft_direct?"):
        config_file.read(["--config", "sft_drect"], Path("nowhere.yaml"), TRL)
    with pytest.raises(ConfigError, match="this is a folder, but a config file is needed"):
        config_file.find(Path(__file__).parent)


def test_recipes_that_come_along_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed wheel has them in its own folder; a file of that name here wins."""
    monkeypatch.chdir(tmp_path)
    for name in ("sft_direct", "sft_direct.yaml", "recipes/sft_direct.yaml"):
        assert config_file.find(name) == program_folder("recipes") / "sft_direct.yaml"
    Path("sft_direct.yaml").write_text("")
    assert config_file.find("sft_direct.yaml") == Path("sft_direct.yaml")
    with pytest.raises(ConfigError, match="elsewhere/sft.yaml: no such config file"):
        config_file.find("elsewhere/sft.yaml")


def test_settings_do_not_change_after_reading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().model = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_no_name_is_both_ours_and_trls() -> None:
    """On the command line a flag belongs to one of the two."""
    from dataclasses import fields

    from trl import GRPOConfig, SFTConfig

    for theirs in (SFTConfig, GRPOConfig):
        assert not set(Settings.model_fields) & {item.name for item in fields(theirs)}
