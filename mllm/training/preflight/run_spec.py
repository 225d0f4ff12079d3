"""What decides the memory and the time of a run, as one value: suggestions change it and estimate again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mllm.config import Lora, Settings
from mllm.training.preflight.hardware import Hardware
from mllm.training.recipe import Recipe

_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


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
        return _WIDTHS[self.settings.dtype]

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
