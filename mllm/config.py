"""Typed settings of the training programs. Imports neither torch nor TRL.

The `fieldmark:` section of a run's YAML file is a `Settings`; `mllm.training.config_file` reads the file and the flags.
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
"""A list of files; a single file may be given without a list."""


class Section(BaseModel):
    """Base class of all settings: unknown keys are errors, and instances are immutable."""

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
    """Evaluation of generated answers during training: Acc@0.5 on the validation file, or R@1 in its bags for captions.
    Selects the best checkpoint."""

    samples: int = Field(default=64, ge=1)
    """Validation samples answered each time: the first ones of the file."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens."""
    every: int = Field(default=100, ge=1)
    """Optimizer steps between evaluations; the last step is always evaluated."""
    at_start: bool = False
    """Evaluate before the first step too, so that curves begin with the weights that training starts from."""
    batch_size: int = Field(default=16, ge=1)
    """Answers generated at once on each process."""
    scorer: str = "pocket-judge"
    """Captions only: the encoder that retrieves. Use another one than the reward's."""
    late: bool = False
    """Captions only: compare words with patches (late interaction) instead of pooled vectors."""
    bags: Paths = ()
    """Captions only: bag files. Without any, samples with the same `bag` form a bag."""


class Refresh(Section):
    """Estimate mastery again during training, on the entities of the training samples."""

    every: int = Field(default=50, ge=1)
    """Optimizer steps between estimates."""
    by: Literal["choices", "marks"] = "choices"
    """Kind of question: four names to choose from, or marks recalled against marks seen (eval/mastery.py)."""
    per_entity: int = Field(default=4, ge=1)
    """Questions about each entity."""
    batch_size: int = Field(default=32, ge=1)
    """Questions answered at once on each process."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest answer, in tokens."""


class MasteryWeight(Section):
    """Weights on the advantage by how well the model knows the sample's entity: one for each of KARL's five levels."""

    file: Path
    """Mastery file to start from (eval/mastery.py)."""
    weights: tuple[float, float, float, float, float] = (0.65, 0.85, 1.0, 1.2, 1.4)
    """From `completely correct` to `completely incorrect`: KARL's factors, applied where they do not cancel."""
    negative: tuple[float, float, float, float, float] | None = None
    """Weights for answers below their group's mean; None uses `weights` for them too."""
    unknown: Level | None = None
    """Level of entities that are not in the file; None makes them an error."""
    refresh: Refresh | None = None
    """Estimate mastery again during training. None keeps the file's levels."""


class Advantage(Section):
    """Changes of advantages, applied after the group normalisation."""

    mastery: MasteryWeight | None = None
    """Weigh prompts by how well the model knows their entity (mllm/training/grpo/weighted_advantages.py)."""
    step_credit: float | None = Field(default=None, gt=0)
    """Weight of each reasoning step's own advantage, on that step's tokens (mllm/training/grpo/step_credit.py). Needs
    the reward `links`, whose weight may be 0."""


class Bags(Section):
    """BagCurri: look-alikes stay in one generation batch, and bags grow (mllm/training/grpo/bag_sampler.py)."""

    files: Paths = ()
    """Bag files (data_synth/bags.py). Without any, rows with the same `bag` are split into bags."""
    schedule: Literal["published"] | tuple[tuple[int, int], ...] = "published"
    """`published`: 2, 3, 5, 7, 10, 15, 20 over twenty epochs. Or pairs of (epochs, bag size); the last one repeats."""
    saturation: float | None = Field(default=None, gt=0, le=1)
    """End a stage early, after an epoch in which this share of the bags' captions found their images."""


class Settings(Section):
    """Fieldmark's own settings of one training run (SFT or RL)."""

    model: str = "pocket"
    """Checkpoint folder, adapter folder, name on the Hugging Face Hub, or `pocket`, this package's small model."""
    family: str | None = None
    """Model family (mllm/families). Needed only if the checkpoint has no fieldmark.json beside its weights."""
    train: Paths = ()
    """Samples files (jsonl) to train on."""
    mix: Paths = ()
    """SFT only: files of plain questions and answers, with or without images, so that the base forgets less."""
    validation: Path | None = None
    """Samples file for `evaluate`. Without it no best checkpoint is kept."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first N samples of each training file."""
    style: Literal["direct", "think"] = "think"
    """Prompt style (mllm/prompting/prompts.py): answer at once, or reason first. Saved beside the weights."""
    visual_tokens: int | None = Field(default=None, ge=1)
    """Most visual tokens per image; larger images are shrunk. None keeps the checkpoint's own budget."""
    min_visual_tokens: int | None = Field(default=None, ge=1)
    """Fewest visual tokens per image; smaller ones are enlarged. None keeps the checkpoint's own budget."""
    max_tokens_per_sample: int = Field(default=4096, ge=1)
    """Limit for prompt, image and answer (RL: `max_completion_length`). Longer rows are refused, never truncated."""
    freeze_vision: bool = True
    """Do not train the vision tower."""
    freeze_projector: bool = True
    """Do not train the projector from visual features to the language model."""
    freeze_llm: bool = False
    """Do not train the language model."""
    lora: Lora | None = None
    """Train adapters instead of the weights. None trains all weights that are not frozen."""
    quantize: Literal["4bit"] | None = None
    """QLoRA: hold the frozen base in 4 bits (NF4). Needs `lora`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number format of the weights during training. To train all weights without DeepSpeed (which keeps float32
    masters), use float32: bfloat16 rounds small updates away."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel."""
    rewards: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """RL only: rewards by file name in mllm/rewards, each with its weight (default 1) and its own fields."""
    advantage: Advantage | None = None
    """RL only: weights on advantages."""
    bags: Bags | None = None
    """RL only: bags of look-alike images that are captioned together."""
    engine: Literal["prefix", "stock"] = "prefix"
    """RL only. prefix: read each prompt once for all its completions (docs/engine.md), where the model and the settings
    allow it. stock: TRL's own trainer, which reads it for each completion."""
    pack: bool = False
    """SFT only: put the rows of a batch into one sequence instead of padding them; no row attends to another."""
    dynamic_sampling: Literal["off", "drop", "resample"] = "off"
    """RL only, for prompts whose answers all got the same reward. drop: exclude them from the loss and its token count
    (for losses divided by tokens: dapo, bnpo, cispo, vespo). resample: draw other prompts in their place first, then
    drop. off: they count as tokens, as in TRL."""
    resample_rounds: int = Field(default=3, ge=1)
    """RL only, with `dynamic_sampling: resample`: most rounds of drawing other prompts before the rest is dropped."""
    evaluate: Evaluate = Evaluate()
    """Evaluation of generated answers during training."""
    resume: str = "auto"
    """auto: continue from the last complete checkpoint in output_dir. never: refuse to. Or a checkpoint folder."""
    silence: float = Field(default=300, gt=0)
    """Several processes: seconds without a heartbeat, or without joining at the start, after which a rank counts as
    lost; the error names it."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch in each process. None keeps torch's default."""

    @property
    def tables(self) -> tuple[Path, ...]:
        """Files besides the data that affect training: mastery, cards and bags."""
        found = [Path(fields[key]) for fields in self.rewards.values() for key in ("file", "cards") if fields.get(key)]
        if self.advantage is not None and self.advantage.mastery is not None:
            found.append(self.advantage.mastery.file)
        found += self.bags.files if self.bags is not None else ()
        return tuple(dict.fromkeys(found))

    @field_validator("rewards")
    @classmethod
    def _weights(cls, value: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """Refuse a weight that is not a number (a reward's own fields are checked when it is built)."""
        for name, fields in value.items():
            weight = fields.get("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ValueError(f"rewards.{name}.weight must be a number, got {weight!r}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        """Refuse settings that contradict each other."""
        if self.quantize and self.lora is None:
            raise ValueError("quantize: 4bit freezes the base, so it needs a lora section")
        if self.lora is None and self.freeze_vision and self.freeze_projector and self.freeze_llm:
            raise ValueError("all parts are frozen and there is no lora section: nothing would be trained")
        if self.visual_tokens and self.min_visual_tokens and self.min_visual_tokens > self.visual_tokens:
            raise ValueError(
                f"min_visual_tokens ({self.min_visual_tokens}) is above visual_tokens ({self.visual_tokens})"
            )
        if self.advantage and self.advantage.step_credit and "links" not in self.rewards:
            raise ValueError("advantage.step_credit needs the reward links: add `links: {weight: 0}` to rewards")
        if self.dynamic_sampling == "resample" and (self.advantage or self.bags):
            raise ValueError(
                "dynamic_sampling: resample replaces prompts one by one, but advantage and bags need whole batches; "
                "set dynamic_sampling: drop, or remove advantage and bags"
            )
        return self
