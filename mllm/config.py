"""Typed settings of the training programs. Holds no torch and no TRL.

One YAML file configures one run. Its `fieldmark:` section is a `Settings` (below); every other key is a flag of TRL's
own `SFTConfig` or `GRPOConfig` and goes there untouched. On the command line our flags and TRL's are mixed freely and
win over the file: `--style direct --lora.r 8 --rewards.iou.weight 2 --learning_rate 1e-5`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from mllm.errors import ConfigError

Part = Literal["vision", "projector", "llm"]
Level = Literal["completely correct", "mostly correct", "partially correct", "mostly incorrect", "completely incorrect"]
"""The levels of `mllm.mastery.LEVELS`."""
SECTION = "fieldmark"
Paths = Annotated[tuple[Path, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str | Path) else value)]
"""Files; a single one may stand for a list of one."""


class Section(BaseModel):
    """What all settings share: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021): h = Wx + alpha/r * BAx, with W frozen."""

    r: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(default=32, ge=1)
    """Scale; the adapter's output is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter, 0 to below 1."""
    parts: tuple[Part, ...] = Field(default=("llm",), min_length=1)
    """Which parts of the model get adapters."""


class Evaluate(Section):
    """Answers written and scored while training: Acc@0.5 on the validation file, of captions R@1 in its bags. The best
    checkpoint is kept by it."""

    samples: int = Field(default=64, ge=1)
    """How many validation samples are answered each time (the first ones of the file)."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Room for one answer, in tokens."""
    every: int = Field(default=100, ge=1)
    """Every how many optimizer steps; the last step is always measured."""
    batch_size: int = Field(default=16, ge=1)
    """Answers written at once, on each process."""
    scorer: str = "pocket-judge"
    """Captions only: the encoder that retrieves. Not the one that rewards."""
    late: bool = False
    """Captions only: words are compared with patches (late interaction) instead of whole vectors."""
    bags: Paths = ()
    """Captions only: bag files. Without any, the bags are the samples that share `bag`."""


class Refresh(Section):
    """Mastery estimated anew while training, on the things of the training samples."""

    every: int = Field(default=50, ge=1)
    """Every how many optimizer steps."""
    by: Literal["choices", "marks"] = "choices"
    """How it is asked: four names to choose from, or the marks recalled against the marks seen (eval/mastery.py)."""
    per_entity: int = Field(default=4, ge=1)
    """How many questions about one entity."""
    batch_size: int = Field(default=32, ge=1)
    """Questions answered at once, on each process."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Room for one answer, in tokens."""


class MasteryWeight(Section):
    """Weights on the advantage by how well the model knows the sample's entity, one for each of KARL's five levels."""

    file: Path
    """Mastery file to begin with (eval/mastery.py)."""
    weights: tuple[float, float, float, float, float] = (0.65, 0.85, 1.0, 1.2, 1.4)
    """From `completely correct` to `completely incorrect`: KARL's factors, laid on where they are not cancelled."""
    negative: tuple[float, float, float, float, float] | None = None
    """Weights of answers worse than their group's mean, where they shall differ from `weights`."""
    unknown: Level | None = None
    """Level of entities that the file does not know; without it they are an error."""
    refresh: Refresh | None = None
    """Estimate mastery anew while training. None keeps the file's."""


class Advantage(Section):
    """Weights on advantages, laid on after the group normalisation (mllm/training/advantages.py)."""

    difficulty: Literal["univg", "linear", "log"] | None = None
    """Weigh prompts by the mean IoU of their answers: `univg` is exp(1 - mean)."""
    mastery: MasteryWeight | None = None
    """Weigh prompts by how well the model knows their entity."""


class Bags(Section):
    """BagCurri: look-alikes stay together in one generation batch, and bags grow (mllm/training/samplers.py)."""

    files: Paths = ()
    """Bag files (data_synth/bags.py). Without any, bags are cut out of the rows that share `bag`."""
    schedule: Literal["published"] | tuple[tuple[int, int], ...] = "published"
    """`published`: 2, 3, 5, 7, 10, 15, 20 over twenty epochs. Or pairs of (epochs, bag size); the last goes on."""
    saturation: float | None = Field(default=None, gt=0, le=1)
    """End a stage after an epoch in which this share of the bags' captions found their pictures, before its time."""


class Settings(Section):
    """Fieldmark's own settings of one training run (SFT or RL)."""

    model: str = "pocket"
    """Checkpoint folder, adapter folder, name on the Hugging Face Hub, or `pocket`, the small model of this package."""
    family: str | None = None
    """Model family (mllm/families). Only needed where the checkpoint has no fieldmark.json beside its weights."""
    train: Paths = ()
    """Samples files (jsonl) to train on."""
    mix: Paths = ()
    """SFT only: files of plain questions and answers, with or without a picture, to keep what the base knows."""
    validation: Path | None = None
    """Samples file that is answered during training (`evaluate`). Without it no best checkpoint is kept."""
    limit: int | None = Field(default=None, ge=1)
    """Use only so many samples of each training file: the first ones."""
    style: Literal["direct", "think"] = "think"
    """Prompt style (mllm/prompts.py): answer at once, or reason first. Saved beside the weights."""
    visual_tokens: int | None = Field(default=None, ge=1)
    """At most so many visual tokens a picture; larger pictures are shrunk. None keeps the checkpoint's own budget."""
    min_visual_tokens: int | None = Field(default=None, ge=1)
    """At least so many visual tokens a picture; smaller ones are enlarged. None keeps the checkpoint's own budget."""
    max_tokens_per_sample: int = Field(default=4096, ge=1)
    """Room for prompt, picture and answer (RL: `max_completion_length`). Longer rows are refused, never cut."""
    freeze_vision: bool = True
    """Keep the vision tower as it is."""
    freeze_projector: bool = True
    """Keep what maps visual features to the language model as it is."""
    freeze_llm: bool = False
    """Keep the language model as it is."""
    lora: Lora | None = None
    """Train adapters instead of the weights. None trains every weight that is not frozen."""
    quantize: Literal["4bit"] | None = None
    """QLoRA: hold the frozen base in 4 bits (NF4). Needs `lora`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number format of the weights while training. Training every weight without DeepSpeed (which keeps float32
    masters) wants float32 here: bfloat16 swallows small updates."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel."""
    rewards: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """RL only: rewards by file name in mllm/rewards, each with its weight (default 1) and its own fields."""
    advantage: Advantage | None = None
    """RL only: weights on the advantages of a prompt's answers."""
    bags: Bags | None = None
    """RL only: bags of look-alike pictures, captioned together."""
    engine: Literal["prefix", "stock"] = "prefix"
    """RL only. prefix: each prompt is read once for all its completions (docs/engine.md), where the model and the
    settings allow it. stock: TRL's trainer as it is, which reads it for each."""
    pack: bool = False
    """SFT only: rows of a batch share sequences instead of being padded to the longest; none sees another."""
    like_lengths: bool = False
    """SFT only: batches are made of rows of like length."""
    pixel_cache: Path | None = None
    """Folder in which pictures are kept as they go into the vision tower, so that each is resized once for all epochs,
    processes, data loader workers and runs. About 6 kB a patch; never emptied."""
    dynamic_sampling: Literal["off", "drop", "resample"] = "off"
    """RL only. drop: prompts whose answers all got the same reward are left out of the loss and of its number of
    tokens. resample: other prompts are drawn in their place first. off: they stay in the number of tokens, as in
    TRL."""
    resample_rounds: int = Field(default=3, ge=1)
    """RL only, with `dynamic_sampling: resample`: how many times prompts are drawn anew before the rest is dropped."""
    evaluate: Evaluate = Evaluate()
    """Generated evaluation during training."""
    resume: str = "auto"
    """auto: go on from the last complete checkpoint in output_dir. never: start anew. Or a checkpoint folder."""
    silence: float = Field(default=300, gt=0)
    """Several processes: seconds to wait for one that has not come, or that is not heard of any more, before the run
    is ended with its name."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch in each process. None leaves torch's own choice."""

    @property
    def tables(self) -> tuple[Path, ...]:
        """Files besides the data that decide what is learned: those of mastery, of cards and of bags."""
        found = [Path(fields[key]) for fields in self.rewards.values() for key in ("file", "cards") if fields.get(key)]
        if self.advantage is not None and self.advantage.mastery is not None:
            found.append(self.advantage.mastery.file)
        found += self.bags.files if self.bags is not None else ()
        return tuple(dict.fromkeys(found))

    @field_validator("rewards")
    @classmethod
    def _weights(cls, value: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """Refuse a weight that is no number (a reward's own fields are checked when it is built)."""
        for name, fields in value.items():
            weight = fields.get("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ValueError(f"rewards.{name}.weight must be a number, got {weight!r}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        """Refuse settings that contradict each other."""
        if self.quantize and self.lora is None:
            raise ValueError("quantize: 4bit holds the base frozen, so it needs a lora section")
        if self.lora is None and self.freeze_vision and self.freeze_projector and self.freeze_llm:
            raise ValueError("every part is frozen and there is no lora section: nothing would be trained")
        if self.visual_tokens and self.min_visual_tokens and self.min_visual_tokens > self.visual_tokens:
            raise ValueError(
                f"min_visual_tokens ({self.min_visual_tokens}) is above visual_tokens ({self.visual_tokens})"
            )
        if self.dynamic_sampling == "resample" and (self.advantage or self.bags):
            raise ValueError(
                "dynamic_sampling: resample replaces prompts one by one, while advantage and bags look at whole "
                "batches; set dynamic_sampling: drop, or leave advantage and bags out"
            )
        return self


S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Run:
    """One run's configuration: our settings, the values for TRL from the file, TRL's flags from the command line."""

    settings: Settings
    trl: Mapping[str, Any]
    flags: tuple[str, ...]
    file: Path


def read(argv: Sequence[str], default: Path, trl_fields: Collection[str]) -> Run:
    """Read the configuration of a run: the YAML file (`--config`, else `default`), overridden by flags.

    Args:
        argv: the command line without the program's name.
        default: the file that is used when no `--config` is given.
        trl_fields: every name that TRL's config class knows.

    Raises:
        ConfigError: no such file, no mapping, an unknown key or flag (with the nearest known one), a wrong value.
    """
    argv = list(argv)
    file = default
    for index, word in enumerate(argv):
        if word == "--config" or word.startswith("--config="):
            file = Path(_value(argv, index))
            del argv[index : index + (1 if "=" in word else 2)]
            break
    values = load_yaml(file)
    ours = values.pop(SECTION, None) or {}
    if not isinstance(ours, Mapping):
        raise ConfigError(f"{file}: {SECTION} must be a section of keys and values")
    for key in values:
        if key not in trl_fields and key != "env":
            known = "a key of the `fieldmark:` section; move it there" if key in Settings.model_fields else None
            raise ConfigError(_unknown(key, str(file), [*trl_fields, SECTION], known))
    flags: list[str] = []
    ours = {key: dict(value) if isinstance(value, Mapping) else value for key, value in ours.items()}
    index = 0
    while index < len(argv):
        word = argv[index]
        name = word.removeprefix("--").split("=", 1)[0]
        if word.startswith("--") and name.split(".")[0] in Settings.model_fields:
            words = _words(argv, index)
            _put(ours, name, words)
            index += 1 if "=" in word else 1 + len(words)
            continue
        if word.startswith("--") and name.removeprefix("no_") not in trl_fields and name not in trl_fields:
            known = [f"--{key}" for key in [*Settings.model_fields, *trl_fields]]
            raise ConfigError(_unknown(f"--{name}", "the command line", known))
        flags.append(word)
        index += 1
    return Run(parse(ours, Settings, str(file)), values, tuple(flags), file)


def load_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping. Raises `ConfigError`, naming the file."""
    if not file.is_file():
        raise ConfigError(f"{file}: no such config file")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: broken YAML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:  # impossible dates, numbers of thousands of digits, deep nesting
        raise ConfigError(f"{file}: broken YAML: {str(error) or type(error).__name__}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: a mapping of keys to values is needed, got {type(values).__name__}")
    if odd := [key for key in values if not isinstance(key, str)]:
        raise ConfigError(f"{file}: keys are names, got {odd[0]!r}")
    return values


def parse(values: Mapping[str, Any], section: type[S], where: str) -> S:
    """Build a settings class from plain values; errors name the key, `where` it stood, and the nearest known key."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(step) for step in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise ConfigError(_unknown(".".join(path), where, _known(section, path))) from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":  # our own sentences quote the value already
            message = f"{message} (got {first['input']!r})"
        raise ConfigError(f"{where}: {'.'.join([SECTION, *path])}: {message}") from None


def _known(section: type[Section], path: Sequence[str]) -> list[str]:
    """Return the dotted keys that could have stood where the unknown key `path` stands."""
    for step in path[:-1]:
        kinds = [section.model_fields[step].annotation] if step in section.model_fields else []
        kinds = [kind for outer in kinds for kind in (outer, *get_args(outer))]
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), section)
    return [".".join([*path[:-1], name]) for name in section.model_fields]


def _unknown(key: str, where: str, known: Collection[str], hint: str | None = None) -> str:
    """Say that a key is unknown and which known one is nearest."""
    near = get_close_matches(key, list(known), n=1, cutoff=0.5)
    hint = hint or (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)[:40])}")
    return f"{where}: unknown key {key!r}: {hint}"


def _words(argv: Sequence[str], index: int) -> list[str]:
    """Return the values of the flag at `index`: what follows `=`, or the words up to the next flag."""
    if "=" in argv[index]:
        return [argv[index].split("=", 1)[1]]
    words: list[str] = []
    for word in argv[index + 1 :]:
        if word.startswith("--"):
            break
        words.append(word)
    return words


def _value(argv: Sequence[str], index: int) -> str:
    """Return the one value of the flag at `index`."""
    words = _words(argv, index)
    if not words:
        raise ConfigError(f"the command line: {argv[index]} needs a value")
    return words[0]


def _put(values: dict[str, Any], name: str, words: Sequence[str]) -> None:
    """Set `a.b.c` in nested dicts, reading words as YAML does (`2` is a number, `[a, b]` a list, no word is true)."""
    *path, last = name.split(".")
    for step in path:
        inner = values.get(step)
        values[step] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        values = inner
    read_words = [_plain(word) for word in words] or [True]
    values[last] = read_words if len(read_words) > 1 else read_words[0]


def _plain(word: str) -> Any:
    """Read one command-line word as YAML, numbers like 1e-5 included."""
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError:
        return word
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 takes 1e-5 for a text
        except ValueError:
            return word
    return value
