"""Typed settings of the training programs. Holds no torch and no TRL.

The `fieldmark:` section of a run's YAML file is a `Settings`; how file and flags are read is in `mllm.training.config_file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Part = Literal["vision", "projector", "llm"]
Level = Literal["completely correct", "mostly correct", "partially correct", "mostly incorrect", "completely incorrect"]
"""The levels of `mllm.knowledge.mastery.LEVELS`."""
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
    """Weights on advantages, laid on after the group normalisation (mllm/training/grpo/advantages.py)."""

    difficulty: Literal["univg", "linear", "log"] | None = None
    """Weigh prompts by the mean IoU of their answers: `univg` is exp(1 - mean)."""
    mastery: MasteryWeight | None = None
    """Weigh prompts by how well the model knows their entity."""


class Bags(Section):
    """BagCurri: look-alikes stay together in one generation batch, and bags grow (mllm/training/grpo/bag_sampler.py)."""

    files: Paths = ()
    """Bag files (data_synth/bags.py). Without any, bags are cut out of the rows that share `bag`."""
    schedule: Literal["published"] | tuple[tuple[int, int], ...] = "published"
    """`published`: 2, 3, 5, 7, 10, 15, 20 over twenty epochs. Or pairs of (epochs, bag size); the last goes on."""
    saturation: float | None = Field(default=None, gt=0, le=1)
    """End a stage after an epoch in which this share of the bags' captions found their images, before its time."""


class Settings(Section):
    """Fieldmark's own settings of one training run (SFT or RL)."""

    model: str = "pocket"
    """Checkpoint folder, adapter folder, name on the Hugging Face Hub, or `pocket`, the small model of this package."""
    family: str | None = None
    """Model family (mllm/families). Only needed where the checkpoint has no fieldmark.json beside its weights."""
    train: Paths = ()
    """Samples files (jsonl) to train on."""
    mix: Paths = ()
    """SFT only: files of plain questions and answers, with or without an image, to keep what the base knows."""
    validation: Path | None = None
    """Samples file that is answered during training (`evaluate`). Without it no best checkpoint is kept."""
    limit: int | None = Field(default=None, ge=1)
    """Use only so many samples of each training file: the first ones."""
    style: Literal["direct", "think"] = "think"
    """Prompt style (mllm/prompting/prompts.py): answer at once, or reason first. Saved beside the weights."""
    visual_tokens: int | None = Field(default=None, ge=1)
    """At most so many visual tokens an image; larger images are shrunk. None keeps the checkpoint's own budget."""
    min_visual_tokens: int | None = Field(default=None, ge=1)
    """At least so many visual tokens an image; smaller ones are enlarged. None keeps the checkpoint's own budget."""
    max_tokens_per_sample: int = Field(default=4096, ge=1)
    """Room for prompt, image and answer (RL: `max_completion_length`). Longer rows are refused, never cut."""
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
    """RL only: bags of look-alike images, captioned together."""
    engine: Literal["prefix", "stock"] = "prefix"
    """RL only. prefix: each prompt is read once for all its completions (docs/engine.md), where the model and the
    settings allow it. stock: TRL's trainer as it is, which reads it for each."""
    pack: bool = False
    """SFT only: rows of a batch share sequences instead of being padded to the longest; none sees another."""
    like_lengths: bool = False
    """SFT only: batches are made of rows of like length."""
    pixel_cache: Path | None = None
    """Folder in which images are kept as they go into the vision tower, so that each is resized once for all epochs,
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
