"""Advice is worked out, not guessed: every change that is named is tried, and what is said to fit does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mllm.config import Lora, Settings
from mllm.training.preflight import memory, suggestions
from mllm.training.preflight.hardware import Machine
from mllm.training.preflight.parameters import Anatomy
from mllm.training.preflight.run_spec import Case
from mllm.training.preflight.token_lengths import Lengths
from tests.training.preflight.test_memory import FULL, QLORA

LORA = replace(QLORA, quantized=0)
ZERO2 = Machine(8, 2, True, False, 80)
CASE = Case(
    settings=Settings(validation="v.jsonl", max_tokens_per_sample=4096), lora=None, machine=ZERO2,
    lengths=Lengths(392, 500, 1500, 2000, True), rl=True, per_device=2, accumulation=1, steps=2,
    completion=1500, beta=0.02,
    optim="adamw_torch_fused", checkpointing=True, bf16=True, vllm_share=0.0,
)  # fmt: skip


def count(settings: Settings, lora: Lora | None) -> Anatomy:
    return FULL if lora is None else QLORA if settings.quantize else LORA


def on(gpu_memory: float, **changes: Any) -> Case:
    return replace(CASE, machine=replace(ZERO2, gpu_memory=gpu_memory), **changes)


def test_the_recipe_fits_80_and_not_40() -> None:
    assert on(80).estimate(count).fits(ZERO2)
    assert not on(40).estimate(count).fits(on(40).machine)


@pytest.mark.parametrize("gpu_memory", [16, 24, 40, 48, 56])
def test_what_is_said_to_fit_does(gpu_memory: float) -> None:
    found = suggestions.advise(on(gpu_memory), count)
    assert found
    for one in found:
        again = one.case.estimate(count)
        assert one.fits == again.fits(one.case.machine)
        assert one.peak == again.peak[1] + memory.CONTEXT
        assert f"{one.peak / memory.GIB:.1f} GiB" in str(one)


def test_a_change_that_costs_nothing_comes_first() -> None:
    """Without checkpointing a long batch does not fit: switching it on is enough, and named first."""
    case = on(80, checkpointing=False, per_device=4, lengths=Lengths(392, 500, 3500, 4000, True))
    assert not case.estimate(count).fits(case.machine)
    first = suggestions.advise(case, count)[0]
    assert first.changes == ("gradient_checkpointing: true",) and first.fits


def test_a_smaller_batch_keeps_the_update() -> None:
    words, smaller = next(iter(suggestions._smaller_batch(replace(CASE, per_device=4))))
    assert (smaller.per_device, smaller.accumulation, smaller.steps) == (2, 2, 4)
    assert words == "per_device_train_batch_size: 2, gradient_accumulation_steps: 2, steps_per_generation: 4"
    assert smaller.per_device * smaller.steps == 4 * CASE.steps


def test_evaluation_can_be_what_is_too_large() -> None:
    large = CASE.settings.evaluate.model_copy(update={"batch_size": 1024})
    case = CASE.with_settings(evaluate=large)
    assert case.estimate(count).peak[0] == "evaluation"
    found = suggestions.advise(case, count)
    assert found[0].changes[0].startswith("fieldmark.evaluate.batch_size: ")


def test_several_changes_where_one_is_not_enough_and_the_closest_miss_where_none_are() -> None:
    hungry = replace(on(8, lengths=Lengths(392, 500, 3500, 4000, True)), completion=3500)
    (together,) = suggestions.advise(hungry, count)
    assert len(together.changes) > 1
    (miss,) = suggestions.advise(on(4), count)
    assert not miss.fits and miss.peak < on(4).estimate(count).peak[1] + memory.CONTEXT


def test_four_bits_leave_deepspeed() -> None:
    words, case = next(iter(suggestions._four_bits(CASE)))
    assert case.settings.quantize == "4bit" and not case.machine.deepspeed and case.lora == Lora(r=32, alpha=64)
    assert "accelerate_configs/ddp_multi_gpu.yaml" in words
