"""What to change when a run does not fit: each change is tried by working the memory out anew, never guessed.

Changes stand in the order of what they cost: first those that alter nothing but speed, then those that alter what is
trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mllm.config import Lora
from mllm.training.preflight.memory import CONTEXT, GIB
from mllm.training.preflight.run_spec import Case, Dissect

ZERO3 = "--config_file accelerate_configs/zero3_multi_node.yaml --num_machines 1 --num_processes"


@dataclass(frozen=True)
class Advice:
    """Changes that belong together, the case that they make, and its peak in bytes (CUDA's own share included)."""

    changes: tuple[str, ...]
    case: Case
    peak: float
    fits: bool

    def __str__(self) -> str:
        """In words, one change after the other."""
        return f"{'; '.join(self.changes)}  ->  {self.peak / GIB:.1f} GiB"


Change = Callable[[Case], Iterator[tuple[str, Case]]]


def advise(case: Case, dissect: Dissect, most: int = 3) -> list[Advice]:
    """Say what makes a case fit: single changes where one is enough, else several in order, else the closest miss."""
    enough: list[Advice] = []
    for change in CHANGES:
        tried = (_judged((words,), changed, dissect) for words, changed in change(case))
        enough += [found for found in [next((one for one in tried if one.fits), None)] if found]  # the mildest of each
        if len(enough) == most:
            break
    if enough:
        return enough
    best = _judged((), case, dissect)
    for change in CHANGES:
        so_far = best
        for words, changed in change(so_far.case):
            step = _judged((*so_far.changes, words), changed, dissect)
            if step.fits:
                return [step]
            if step.peak < best.peak:
                best = step
    return [best] if best.changes else []


def _judged(changes: tuple[str, ...], case: Case, dissect: Dissect) -> Advice:
    """Work out a changed case."""
    found = case.estimate(dissect)
    return Advice(changes, case, found.peak[1] + CONTEXT, found.fits(case.machine))


def _checkpoint(case: Case) -> Iterator[tuple[str, Case]]:
    if not case.checkpointing:
        yield "gradient_checkpointing: true", replace(case, checkpointing=True)


def _smaller_evaluation(case: Case) -> Iterator[tuple[str, Case]]:
    rows = case.settings.evaluate.batch_size
    while case.settings.validation is not None and rows > 1:
        rows //= 2
        evaluate = case.settings.evaluate.model_copy(update={"batch_size": rows})
        yield f"fieldmark.evaluate.batch_size: {rows}", case.with_settings(evaluate=evaluate)


def _smaller_batch(case: Case) -> Iterator[tuple[str, Case]]:
    """Fewer rows at once, as many an update: accumulation and the passes over a draw grow alike."""
    by = 2
    while case.per_device % by == 0:
        rows, accumulation = case.per_device // by, case.accumulation * by
        words = f"per_device_train_batch_size: {rows}, gradient_accumulation_steps: {accumulation}"
        if case.rl:
            words += f", steps_per_generation: {case.steps * by}"
        yield words, replace(case, per_device=rows, accumulation=accumulation, steps=case.steps * by)
        by *= 2


def _eight_bit(case: Case) -> Iterator[tuple[str, Case]]:
    if not case.machine.deepspeed and "8bit" not in case.optim:
        yield "optim: paged_adamw_8bit", replace(case, optim="paged_adamw_8bit")


def _shard(case: Case) -> Iterator[tuple[str, Case]]:
    machine = case.machine
    if machine.processes < 2 or case.settings.quantize:
        return
    if not machine.deepspeed:
        zero2 = replace(machine, zero=2, deepspeed=True)
        words = f"--config_file accelerate_config.yaml --num_processes {machine.processes} (ZeRO-2)"
        yield words, replace(case, machine=zero2)
    if machine.zero < 3:
        zero3 = replace(machine, zero=3, deepspeed=True)
        yield f"{ZERO3} {machine.processes} (ZeRO-3)", replace(case, machine=zero3)


def _no_reference(case: Case) -> Iterator[tuple[str, Case]]:
    if case.rl and case.beta and case.lora is None:
        yield "beta: 0.0 (no reference model, no KL term)", replace(case, beta=0.0)


def _adapters(case: Case) -> Iterator[tuple[str, Case]]:
    if case.lora is None:
        lora = Lora(r=32, alpha=64)
        yield "fieldmark.lora: {r: 32, alpha: 64}", replace(case.with_settings(lora=lora), lora=lora)


def _four_bits(case: Case) -> Iterator[tuple[str, Case]]:
    if case.settings.quantize is None:
        lora = case.lora or Lora(r=32, alpha=64)
        machine = replace(case.machine, zero=0, deepspeed=False)
        words = "fieldmark.lora: {r: 32, alpha: 64}, " * (case.lora is None) + "fieldmark.quantize: 4bit"
        words += " with accelerate_configs/ddp_multi_gpu.yaml" * (machine != case.machine)
        changed = case.with_settings(lora=lora, quantize="4bit")
        yield words, replace(changed, lora=lora, machine=machine)


def _shorter_answers(case: Case) -> Iterator[tuple[str, Case]]:
    length = case.completion
    while case.rl and length >= 512:
        length //= 2
        whole = case.lengths.whole - case.completion + length
        lengths = replace(case.lengths, answer=length, whole=whole)
        yield f"max_completion_length: {length}", replace(case, completion=length, lengths=lengths)


def _smaller_images(case: Case) -> Iterator[tuple[str, Case]]:
    visual = case.lengths.visual
    while visual >= 128:
        visual //= 2
        less, n = case.lengths.visual - visual, case.lengths
        lengths = replace(n, visual=visual, prompt=max(n.prompt - less, visual), whole=n.whole - less)
        yield f"fieldmark.visual_tokens: {visual}", replace(case.with_settings(visual_tokens=visual), lengths=lengths)


CHANGES: tuple[Change, ...] = (
    _checkpoint,
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
