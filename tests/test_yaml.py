"""Every YAML file of the repository is read by the program it is written for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {".venv", ".venv-web", ".git", "runs", "build", "dist", "node_modules"}
FILES = sorted(
    path
    for pattern in ("**/*.yaml", "**/*.yml", ".*.yaml", ".*/**/*.yaml")
    for path in ROOT.glob(pattern)
    if not ELSEWHERE & set(path.relative_to(ROOT).parts)
)
ACCELERATE = [ROOT / "accelerate_config.yaml", *sorted((ROOT / "accelerate_configs").glob("*.yaml"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def cluster(path: Path) -> Any:
    """Accelerate's own reading of a configuration."""
    from accelerate.commands.config.config_args import load_config_from_file

    return load_config_from_file(str(path))


def test_the_search_finds_them() -> None:
    assert set(FILES) >= {*ACCELERATE, *RECIPES, ROOT / ".pre-commit-config.yaml"}
    assert len(ACCELERATE) == 10


@pytest.mark.parametrize("path", FILES, ids=short)
def test_parses_and_opens_with_a_story(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert isinstance(yaml.safe_load(text), dict)
    assert text.startswith("#"), "a configuration opens with what it is for"


@pytest.mark.parametrize("path", FILES, ids=short)
def test_no_key_is_written_twice(path: Path) -> None:
    """YAML lets the second one win without a word."""

    def pairs(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{short(path)}: a key is written twice in {sorted(keys)}"
        if isinstance(node, yaml.CollectionNode):
            for child in node.value:
                for part in child if isinstance(child, tuple) else (child,):
                    pairs(part)

    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert root is not None
    pairs(root)


@pytest.mark.parametrize("path", ACCELERATE, ids=short)
def test_accelerate_reads_it(path: Path) -> None:
    from accelerate.commands.launch import launch_command_parser

    config = cluster(path)
    assert config.num_processes >= 1
    flags = {action.dest for action in launch_command_parser()._actions}
    unknown = set(config.deepspeed_config) - flags  # the launcher drops a key that is no flag of its own
    assert not unknown, f"{short(path)}: accelerate's launcher knows no {sorted(unknown)}"


def test_the_everyday_accelerate_config_is_what_the_readme_says() -> None:
    config = cluster(ROOT / "accelerate_config.yaml")
    assert config.distributed_type.value == "DEEPSPEED"
    assert (config.deepspeed_config["zero_stage"], config.num_processes, config.mixed_precision) == (2, 8, "bf16")
    far = cluster(ROOT / "accelerate_configs" / "zero3_multi_node.yaml")
    assert (far.deepspeed_config["zero_stage"], far.num_machines, far.num_processes) == (3, 2, 16)


@pytest.mark.parametrize("path", RECIPES, ids=short)
def test_the_recipes_own_loader_reads_it(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown keys, wrong values and unknown rewards are refused; on the CPU, a missing GPU is no error of the file."""
    from trl import GRPOConfig, SFTConfig

    from mllm.knowledge.mastery import Entry, MasteryTable
    from mllm.rewards import load_all
    from mllm.training import arguments

    is_rl = "rewards" in yaml.safe_load(path.read_text(encoding="utf-8"))["fieldmark"]
    flags = ["--config", str(path), "--bf16", "False", "--use_cpu", "True"]
    settings, args = arguments.read(flags, path, GRPOConfig if is_rl else SFTConfig)
    monkeypatch.chdir(tmp_path)
    for file in settings.tables:  # made by eval/mastery.py, not part of the repository
        MasteryTable({"wren": Entry("mostly correct", 1, 2)}).save(file)
    assert bool(load_all(settings.rewards)) == is_rl
    assert str(args.output_dir).startswith("runs/")
    assert settings.validation is not None, "without a validation file no best checkpoint is kept"


def test_a_key_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    from trl import SFTConfig

    from mllm.errors import ConfigError
    from mllm.training import arguments

    path = tmp_path / "x.yaml"
    path.write_text("fieldmark: {}\nlerning_rate: 1\noutput_dir: x\n")
    with pytest.raises(ConfigError, match="learning_rate"):
        arguments.read(["--config", str(path)], path, SFTConfig)


MACHINE = {"attention", "resume", "silence"}
"""Settings of the machine and of how a run is started, which no recipe has to set."""


def keys_of(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a settings class and of the sections in it."""
    from mllm.config import Section

    for name, field in kind.model_fields.items():
        yield prefix + name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from keys_of(inner, f"{prefix}{name}.")


def keys_in(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a YAML section."""
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys_in(value, f"{prefix}{name}.")


def test_every_setting_and_every_reward_is_used_by_a_recipe() -> None:
    from mllm import rewards
    from mllm.config import SECTION, Settings

    used = {key for path in RECIPES for key in keys_in(yaml.safe_load(path.read_text(encoding="utf-8"))[SECTION])}
    known = {*keys_of(Settings), *(f"rewards.{name}" for name in rewards.names())}
    assert known - used == MACHINE
