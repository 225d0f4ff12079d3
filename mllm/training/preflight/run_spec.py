"""What decides a run's memory, as one value: advice changes a setting in it and works the memory out anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mllm.config import Lora, Settings
from mllm.models.families import Family
from mllm.training.preflight import memory
from mllm.training.preflight.hardware import Machine
from mllm.training.preflight.memory import Draw, Estimate, Load
from mllm.training.preflight.parameters import Anatomy, dissect
from mllm.training.preflight.token_lengths import Lengths
from mllm.training.recipe import Recipe

Dissect = Callable[[Settings, Lora | None], Anatomy]
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Case:
    """A recipe on a machine with rows of known length.

    `steps` is how many passes a drawn batch of answers is learned from (RL), `completion` how long an answer may be.
    """

    settings: Settings
    lora: Lora | None
    machine: Machine
    lengths: Lengths
    rl: bool
    per_device: int
    accumulation: int
    steps: int
    completion: int
    beta: float
    optim: str
    checkpointing: bool
    bf16: bool
    vllm_share: float

    @property
    def load(self) -> Load:
        """What one process holds at the worst moment."""
        s, n = self.settings, self.lengths
        drawn = self.per_device * self.steps
        draws: list[Draw] = []
        if self.rl and not self.vllm_share:
            draws.append(Draw("rollouts", drawn, n.prompt, n.prompt + self.completion))
        if s.validation is not None:
            draws.append(Draw("evaluation", s.evaluate.batch_size, n.prompt, n.prompt + s.evaluate.max_new_tokens))
        return Load(
            rows=self.per_device,
            length=n.whole,
            scored=self.completion if self.rl else n.answer,
            visual=n.visual,
            held=drawn if self.rl else self.per_device,
            width=_WIDTHS[s.dtype],
            bf16=self.bf16 or s.dtype != "float32",
            checkpointing=self.checkpointing,
            eager=s.attention == "eager",
            optim=self.optim,
            reference=self.rl and self.beta != 0,
            dropout=self.lora is not None and self.lora.dropout > 0,
            draws=tuple(draws),
            vllm_share=self.vllm_share,
        )

    def estimate(self, dissect: Dissect) -> Estimate:
        """Work out the memory of one GPU."""
        return memory.estimate(dissect(self.settings, self.lora), self.load, self.machine)

    def with_settings(self, **changes: Any) -> Case:
        """Return the case with some of our settings changed."""
        return replace(self, settings=self.settings.model_copy(update=changes))


def of(recipe: Recipe, lora: Lora | None, machine: Machine, lengths: Lengths) -> Case:
    """Gather what decides memory from a recipe. `lora`: the adapters that are trained, wherever they come from."""
    args, rl = recipe.args, recipe.kind == "rl"
    vllm = rl and args.use_vllm and args.vllm_mode == "colocate"
    return Case(
        settings=recipe.settings,
        lora=lora,
        machine=machine,
        lengths=lengths,
        rl=rl,
        per_device=recipe.per_device,
        accumulation=args.gradient_accumulation_steps,
        steps=args.steps_per_generation if rl else 1,
        completion=args.max_completion_length if rl else 0,
        beta=args.beta if rl else 0.0,
        optim=str(getattr(args.optim, "value", args.optim)),
        checkpointing=bool(args.gradient_checkpointing),
        bf16=recipe.bf16,
        vllm_share=args.vllm_gpu_memory_utilization if vllm else 0.0,
    )


def dissector(config: Any, family: Family) -> Dissect:
    """Return a function that counts a model's parameters and remembers, for advice asks again and again."""
    known: dict[Any, Anatomy] = {}

    def count(settings: Settings, lora: Lora | None) -> Anatomy:
        frozen = (settings.freeze_vision, settings.freeze_projector, settings.freeze_llm)
        key = (lora, settings.quantize, frozen if lora is None else None)
        if key not in known:
            known[key] = dissect(config, family, settings, lora)
        return known[key]

    return count
