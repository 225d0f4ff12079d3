"""Reads a recipe without starting it, as it would run on the machine that its header names.

TRL's own checks see the batch of all its processes; weights that an earlier recipe makes are traced back to their base.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mllm import config
from mllm.config import Settings
from mllm.errors import ConfigError, FieldmarkError
from mllm.training import arguments, config_file

from trl import GRPOConfig, SFTConfig  # isort: skip  (after mllm.training, which switches its telemetry off)

Kind = Literal["sft", "rl"]
_CONFIGS = {"sft": SFTConfig, "rl": GRPOConfig}
_LAUNCH = re.compile(r"accelerate launch +--config_file +(\S+)")


@dataclass(frozen=True)
class Recipe:
    """One stage of training by its YAML and flags. `args` is TRL's, built for one process of the machine."""

    file: Path
    kind: Kind
    settings: Settings
    args: Any
    bf16: bool
    processes: int

    @property
    def per_device(self) -> int:
        """Rows per micro-step of one process (TRL was given the rows of all processes)."""
        return self.args.per_device_train_batch_size // self.processes


def read(file: Path, flags: Sequence[str] = (), *, processes: int = 1) -> Recipe:
    """Read a recipe for a machine of `processes` processes. `flags` follow `--config FILE` on the command line.

    Raises:
        ConfigError: as in the recipes: an unknown key, a wrong value, a batch without whole groups.
    """
    kind = kind_of(file, flags)
    known = {item.name for item in fields(_CONFIGS[kind]) if item.init}
    run = config_file.read(["--config", str(file), *flags], file, known)
    values = dict(run.trl) | _flag_values(run.flags, "per_device_train_batch_size", "bf16")
    rows = values.get("per_device_train_batch_size", _default(kind, "per_device_train_batch_size"))
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ConfigError(f"{file}: per_device_train_batch_size must be a whole number from 1, got {rows!r}")
    if kind == "rl":
        _check_groups(file, {**values, **_flag_values(run.flags, *_GROUPS)}, rows, processes)
    overrides = ["--bf16", "False", "--use_cpu", "True", "--per_device_train_batch_size", str(rows * processes)]
    settings, args = arguments.read(["--config", str(file), *flags, *overrides], file, _CONFIGS[kind])
    return Recipe(file, kind, settings, args, bool(values.get("bf16", True)), processes)


def kind_of(file: Path, flags: Sequence[str] = ()) -> Kind:
    """Return which program a YAML is for: rewards, or a key that only GRPO has, belong to `recipes/rl.py`."""
    values = config_file.load_yaml(file)
    ours = values.get(config.SECTION)
    flagged = {flag.removeprefix("--").split("=")[0].split(".")[0] for flag in flags if flag.startswith("--")}
    only_rl = {item.name for item in fields(GRPOConfig)} - {item.name for item in fields(SFTConfig)}
    is_rl = (isinstance(ours, dict) and "rewards" in ours) or bool(({*values} | flagged) & (only_rl | {"rewards"}))
    return "rl" if is_rl else "sft"


def accelerate_file(file: Path) -> Path | None:
    """Return the accelerate configuration in the command of a recipe's header, None if there is none.

    It is searched for in the working directory, then beside the recipe's folder.
    """
    match = _LAUNCH.search(file.read_text(encoding="utf-8"))
    if match is None:
        return None
    for folder in (Path(), file.resolve().parent.parent):
        if (folder / match[1]).is_file():
            return folder / match[1]
    raise ConfigError(f"{file}: its header names {match[1]}, which does not exist; name yours with --accelerate")


def origin(recipe: Recipe) -> Settings:
    """Return the settings of the stage whose weights are the published ones: this recipe's, or an earlier one's.

    An RL recipe starts from `runs/x/sft/best`. If that folder does not exist yet, the YAML beside it whose `output_dir`
    is `runs/x/sft` describes it.

    Raises:
        FieldmarkError: the model is a folder that does not exist and that no recipe beside this one makes.
    """
    settings, visited = recipe.settings, {recipe.file.resolve()}
    while settings.model != "pocket" and not Path(settings.model).is_dir():
        made_by = [
            path
            for path in sorted(recipe.file.resolve().parent.glob("*.yaml"))
            if path not in visited and makes(path, settings.model)
        ]
        if not made_by:
            if settings.model.count("/") == 1 and settings.model[0] not in "./~":
                return settings  # a name on the Hub
            raise FieldmarkError(
                f"{recipe.file}: model: {settings.model} does not exist, and no recipe beside this one has it as its "
                f"output_dir. Run the previous stage, or name the checkpoint: -- --model Qwen/Qwen3-VL-8B-Instruct"
            )
        visited.add(made_by[0])
        earlier = config_file.load_yaml(made_by[0]).get(config.SECTION) or {}
        settings = config_file.parse(earlier, Settings, str(made_by[0]))
    return settings


_GROUPS = ("num_generations", "gradient_accumulation_steps", "steps_per_generation", "generation_batch_size")


def _check_groups(file: Path, values: dict[str, Any], rows: int, processes: int) -> None:
    """Refuse a generation batch that does not consist of whole groups of answers; the error names sizes that fit."""
    group = values.get("num_generations", _default("rl", "num_generations"))
    steps = values.get("steps_per_generation") or values.get("gradient_accumulation_steps", 1)
    drawn = values.get("generation_batch_size") or rows * processes * steps
    numbers = {"num_generations": group, "steps_per_generation": steps, "generation_batch_size": drawn}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{file}: {name} must be a whole number from 1, got {value!r}")
    if drawn % group:
        fitting = [n for n in range(1, 4 * rows + group + 1) if n * processes * steps % group == 0]
        near = sorted(fitting, key=lambda n: (abs(n - rows), -n))[:2]
        raise ConfigError(
            f"{file}: {rows} rows a process x {processes} processes x {steps} steps = {drawn} answers per generation "
            f"batch, which is not a multiple of num_generations = {group}. Set per_device_train_batch_size to "
            f"{' or '.join(map(str, near))}, or num_generations to a divisor of {drawn}"
        )


def check_generation_batch(where: str | Path, args: Any, rows: int) -> int:
    """Return the prompts of a generation batch (RL). Raises ConfigError with fewer rows: no step could be taken."""
    prompts: int = args.generation_batch_size // args.num_generations
    if rows < prompts:
        raise ConfigError(
            f"{where}: a generation batch has {prompts} prompts, and there are only {rows} rows. "
            f"Lower per_device_train_batch_size or steps_per_generation, or supply more rows"
        )
    return prompts


def _flag_values(flags: Sequence[str], *names: str) -> dict[str, Any]:
    """Return the flags' values for those TRL fields that are needed before TRL parses them."""
    values: dict[str, Any] = {}
    for index, flag in enumerate(flags):
        name, has_value, value = flag.removeprefix("--").partition("=")
        if flag.startswith("--") and name in names:
            word = value if has_value else flags[index + 1] if index + 1 < len(flags) else ""
            number = int(word) if word.isdigit() else word
            values[name] = word.lower() in ("true", "1", "yes", "") if name == "bf16" else number
    return values


def _default(kind: Kind, name: str) -> Any:
    return next(item.default for item in fields(_CONFIGS[kind]) if item.name == name)


def makes(file: Path, model: str) -> bool:
    """Whether a recipe writes the weights `model`: its output_dir, or a folder in it (`best`)."""
    made = config_file.load_yaml(file).get("output_dir")
    return made is not None and Path(str(made)) in (Path(model), Path(model).parent)
