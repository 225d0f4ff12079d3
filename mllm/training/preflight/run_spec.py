"""What decides the memory and the time of a run, its hardware included: suggestions change it and estimate again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mllm.config import Lora, Settings
from mllm.errors import ConfigError
from mllm.io.files import no_such
from mllm.training.recipe import Recipe

SEVERAL_GPU_MEMORY, ONE_GPU_MEMORY = 80.0, 24.0  # default GiB per GPU: a node of A100s or H100s, a consumer GPU


@dataclass(frozen=True)
class Hardware:
    """Processes in total, one GPU each. `zero` is DeepSpeed's stage, 0 without sharding; `gpu_memory` is GiB per GPU.

    `offload` means that optimizer states are kept in host memory.
    """

    processes: int = 1
    zero: int = 0
    deepspeed: bool = False
    offload: bool = False
    gpu_memory: float = ONE_GPU_MEMORY

    def __str__(self) -> str:
        """Describe the hardware in words."""
        how = f"DeepSpeed ZeRO-{self.zero}" if self.deepspeed else "data parallel" if self.processes > 1 else "alone"
        return f"{self.processes} x {self.gpu_memory:g} GiB, {how}"


def read_hardware(file: Path | None, *, processes: int | None = None, gpu_memory: float | None = None) -> Hardware:
    """Read an accelerate configuration; `processes` and `gpu_memory` override it. Without a file: one process.

    Raises:
        ConfigError: accelerate cannot read the file; it configures FSDP, whose memory is not estimated; less than one
            process or no memory.
    """
    found = Hardware() if file is None else _configured(file)
    count = found.processes if processes is None else processes
    memory = gpu_memory or (SEVERAL_GPU_MEMORY if count > 1 else ONE_GPU_MEMORY)
    if count < 1 or memory <= 0:
        raise ConfigError(f"expected at least one process and some GPU memory, got {count} and {memory:g} GiB")
    return replace(found, processes=count, gpu_memory=memory)


def _configured(file: Path) -> Hardware:
    from accelerate.commands.config.config_args import load_config_from_file

    if not file.is_file():
        raise ConfigError(no_such(file, "accelerate configuration"))
    try:
        config: Any = load_config_from_file(str(file))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file}: accelerate cannot read it: {error}") from error
    kind = getattr(config.distributed_type, "value", config.distributed_type)
    if kind == "FSDP":
        raise ConfigError(f"{file}: memory under FSDP cannot be estimated; use a DeepSpeed configuration")
    deepspeed = config.deepspeed_config if kind == "DEEPSPEED" else {}
    if "deepspeed_config_file" in deepspeed:
        raise ConfigError(f"{file}: a deepspeed_config_file is not read here; write zero_stage into {file.name} itself")
    stage = int(deepspeed.get("zero_stage", 2)) if kind == "DEEPSPEED" else 0
    offload = deepspeed.get("offload_optimizer_device", "none") not in ("none", None)
    return Hardware(config.num_processes or 1, stage, kind == "DEEPSPEED", offload)


@dataclass(frozen=True)
class TokenLengths:
    """Tokens of the longest image, prompt (image included), answer, and complete row; each is a maximum of its own.

    `counted`: measured with a tokenizer. Otherwise they are the largest that the recipe allows.
    """

    visual: int
    prompt: int
    answer: int
    row: int
    counted: bool


def upper_bound(recipe: Recipe, visual_tokens: int) -> TokenLengths:
    """Return the longest row that a recipe allows, where nothing can be counted."""
    max_length, max_new_tokens = recipe.settings.max_tokens_per_sample, max_answer(recipe)
    prompt = max_length - max_new_tokens
    visual_tokens = min(visual_tokens, prompt)
    answer = max_new_tokens if recipe.kind == "rl" else max_length - visual_tokens
    return TokenLengths(visual_tokens, prompt, answer, max_length, False)


def max_answer(recipe: Recipe) -> int:
    """Return how many tokens of a row are kept free for a generated answer; 0 in SFT."""
    return recipe.args.max_completion_length if recipe.kind == "rl" else 0


@dataclass(frozen=True)
class GenerationBatch:
    """Answers that one process generates at once: `rows` prompts of `prompt` tokens, `length` with the answer."""

    name: str
    rows: int
    prompt: int
    length: int


@dataclass(frozen=True)
class RunSpec:
    """A recipe on given hardware, with rows of known length.

    `steps_per_generation` is the number of micro-batches that one batch of rollouts is split into (1 in SFT);
    `max_completion_length` and `beta` are 0 in SFT; `vllm_share` is the share of each GPU that a colocated vLLM takes.
    """

    settings: Settings
    lora: Lora | None
    hardware: Hardware
    lengths: TokenLengths
    rl: bool
    per_device: int
    accumulation: int
    steps_per_generation: int
    max_completion_length: int
    beta: float
    optim: str
    checkpointing: bool
    bf16: bool
    vllm_share: float

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight as it is loaded, without DeepSpeed."""
        return 4 if self.settings.dtype == "float32" else 2

    @property
    def autocast(self) -> bool:
        """Whether float32 weights are computed with in bfloat16."""
        return self.bf16 and self.weight_bytes == 4 and not self.hardware.deepspeed

    @property
    def activation_bytes(self) -> int:
        """Bytes of one number in an activation."""
        return 2 if self.bf16 or self.hardware.deepspeed else self.weight_bytes

    @property
    def scored_tokens(self) -> int:
        """Tokens of one row that the loss covers, at most."""
        return self.max_completion_length if self.rl else self.lengths.answer

    @property
    def generation_rows(self) -> int:
        """Rows that one process keeps until the next batch is loaded or generated."""
        return self.per_device * self.steps_per_generation

    @property
    def generations(self) -> tuple[GenerationBatch, ...]:
        """The batches that transformers generates: rollouts, unless vLLM does it, and the evaluation."""
        found, prompt, evaluate = [], self.lengths.prompt, self.settings.evaluate
        if self.rl and not self.vllm_share:
            length = prompt + self.max_completion_length
            found.append(GenerationBatch("rollouts", self.generation_rows, prompt, length))
        if self.settings.validation is not None:
            length = prompt + evaluate.max_new_tokens
            found.append(GenerationBatch("evaluation", evaluate.batch_size, prompt, length))
        return tuple(found)

    def with_settings(self, **changes: Any) -> RunSpec:
        """Return a copy with some of Fieldmark's settings changed."""
        return replace(self, settings=self.settings.model_copy(update=changes))


def run_spec(recipe: Recipe, lora: Lora | None, hardware: Hardware, lengths: TokenLengths) -> RunSpec:
    """Collect what decides memory from a recipe. `lora`: the adapters that are trained, wherever they come from."""
    args, rl = recipe.args, recipe.kind == "rl"
    colocated = rl and args.use_vllm and args.vllm_mode == "colocate"
    return RunSpec(
        settings=recipe.settings,
        lora=lora,
        hardware=hardware,
        lengths=lengths,
        rl=rl,
        per_device=recipe.per_device,
        accumulation=args.gradient_accumulation_steps,
        steps_per_generation=args.steps_per_generation if rl else 1,
        max_completion_length=max_answer(recipe),
        beta=args.beta if rl else 0.0,
        optim=str(getattr(args.optim, "value", args.optim)),
        checkpointing=bool(args.gradient_checkpointing),
        bf16=recipe.bf16,
        vllm_share=args.vllm_gpu_memory_utilization if colocated else 0.0,
    )
