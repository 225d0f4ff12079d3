"""What to change when a run does not fit: each change is tried by estimating the memory again, never guessed.

Changes are ordered by cost: first those that affect only speed, then those that affect what is trained.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from mllm.config import Lora
from mllm.training.preflight.memory import CUDA_CONTEXT, GIB, estimate
from mllm.training.preflight.parameters import CountParameters
from mllm.training.preflight.run_spec import RunSpec


@dataclass(frozen=True)
class Suggestion:
    """Changes to make together, the run that results, and its peak in bytes (the CUDA context included)."""

    changes: tuple[str, ...]
    spec: RunSpec
    peak: float
    fits: bool

    def __str__(self) -> str:
        """List the changes, and the peak they lead to."""
        return f"{'; '.join(self.changes)}  ->  {self.peak / GIB:.1f} GiB"


Change = Callable[[RunSpec], Iterator[tuple[str, RunSpec]]]


def suggest(spec: RunSpec, count: CountParameters, most: int = 3) -> list[Suggestion]:
    """Find what makes a run fit: single changes if one is enough, else several in order, else the closest miss."""
    enough: list[Suggestion] = []
    for change in CHANGES:
        tried = (_estimated((words,), changed, count) for words, changed in change(spec))
        enough += list(islice((one for one in tried if one.fits), 1))  # the mildest of each
        if len(enough) == most:
            break
    if enough:
        return enough
    best = _estimated((), spec, count)
    for change in CHANGES:
        so_far = best
        for words, changed in change(so_far.spec):
            step = _estimated((*so_far.changes, words), changed, count)
            if step.fits:
                return [step]
            if step.peak < best.peak:
                best = step
    return [best] if best.changes else []


def _estimated(changes: tuple[str, ...], spec: RunSpec, count: CountParameters) -> Suggestion:
    found = estimate(count(spec.settings, spec.lora), spec)
    return Suggestion(changes, spec, found.peak[1] + CUDA_CONTEXT, found.fits(spec.hardware))


def _checkpointing(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    if not spec.checkpointing:
        yield "gradient_checkpointing: true", replace(spec, checkpointing=True)


def _smaller_evaluation(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    rows = spec.settings.evaluate.batch_size
    while spec.settings.validation is not None and rows > 1:
        rows //= 2
        evaluate = spec.settings.evaluate.model_copy(update={"batch_size": rows})
        yield f"fieldmark.evaluate.batch_size: {rows}", spec.with_settings(evaluate=evaluate)


def _smaller_batch(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    """Fewer rows at once and as many per update: accumulation and steps per generation grow alike."""
    by = 2
    while spec.per_device % by == 0:
        rows, accumulation, steps = spec.per_device // by, spec.accumulation * by, spec.steps_per_generation
        words = f"per_device_train_batch_size: {rows}, gradient_accumulation_steps: {accumulation}"
        if spec.rl:
            steps *= by
            words += f", steps_per_generation: {steps}"
        yield words, replace(spec, per_device=rows, accumulation=accumulation, steps_per_generation=steps)
        by *= 2


def _eight_bit(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    if not spec.hardware.deepspeed and "8bit" not in spec.optim:
        yield "optim: paged_adamw_8bit", replace(spec, optim="paged_adamw_8bit")


def _shard(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    hardware = spec.hardware
    if hardware.processes < 2 or spec.settings.quantize:
        return
    if not hardware.deepspeed:
        words = f"--config_file accelerate_config.yaml --num_processes {hardware.processes} (ZeRO-2)"
        yield words, replace(spec, hardware=replace(hardware, zero=2, deepspeed=True))
    if hardware.zero < 3:
        words = "--config_file accelerate_configs/zero3_multi_node.yaml --num_machines 1 --num_processes"
        yield (
            f"{words} {hardware.processes} (ZeRO-3)",
            replace(spec, hardware=replace(hardware, zero=3, deepspeed=True)),
        )


def _no_reference(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    if spec.beta and spec.lora is None:
        yield "beta: 0.0 (no reference model, no KL term)", replace(spec, beta=0.0)


def _adapters(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    if spec.lora is None:
        lora = Lora(r=32, alpha=64)
        yield "fieldmark.lora: {r: 32, alpha: 64}", replace(spec.with_settings(lora=lora), lora=lora)


def _four_bits(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    if spec.settings.quantize is None:
        lora = spec.lora or Lora(r=32, alpha=64)
        hardware = replace(spec.hardware, zero=0, deepspeed=False)
        words = "fieldmark.lora: {r: 32, alpha: 64}, " * (spec.lora is None) + "fieldmark.quantize: 4bit"
        words += " with accelerate_configs/ddp_multi_gpu.yaml" * (hardware != spec.hardware)
        yield words, replace(spec.with_settings(lora=lora, quantize="4bit"), lora=lora, hardware=hardware)


def _shorter_answers(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    length, lengths = spec.max_completion_length, spec.lengths
    while spec.rl and length >= 512:
        length //= 2
        shorter = replace(lengths, answer=length, row=lengths.row - spec.max_completion_length + length)
        yield f"max_completion_length: {length}", replace(spec, max_completion_length=length, lengths=shorter)


def _smaller_images(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    lengths, visual = spec.lengths, spec.lengths.visual
    while visual >= 128:
        visual //= 2
        less = lengths.visual - visual
        shorter = replace(lengths, visual=visual, prompt=max(lengths.prompt - less, visual), row=lengths.row - less)
        yield f"fieldmark.visual_tokens: {visual}", replace(spec.with_settings(visual_tokens=visual), lengths=shorter)


CHANGES: tuple[Change, ...] = (
    _checkpointing,
    _smaller_evaluation,
    _smaller_batch,
    _shard,
    _eight_bit,
    _no_reference,
    _adapters,
    _four_bits,
    _shorter_answers,
    _smaller_images,
)
