"""Suggestions are calculated, not guessed: every suggested change is tried, and what is reported to fit does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mllm.config import Lora, Settings
from mllm.training.preflight import memory, suggestions
from mllm.training.preflight.parameters import ParameterCounts
from mllm.training.preflight.run_spec import RunSpec, TokenLengths
from tests.training.preflight.test_memory import FULL, QLORA, RUN, ZERO2

LORA = replace(QLORA, quantized=0)
SPEC = replace(RUN, settings=Settings(validation=Path("v.jsonl"), max_tokens_per_sample=4096))
LONG = TokenLengths(392, 500, 3500, 4000, True)


def fits(spec: RunSpec) -> bool:
    return memory.estimate(count(spec.settings, spec.lora), spec).fits(spec.hardware)


def peak(spec: RunSpec) -> tuple[str, float]:
    phase, size = memory.estimate(count(spec.settings, spec.lora), spec).peak
    return phase, size + memory.CUDA_CONTEXT


def count(settings: Settings, lora: Lora | None) -> ParameterCounts:
    return FULL if lora is None else QLORA if settings.quantize else LORA


def on(gpu_memory: float, **changes: Any) -> RunSpec:
    return replace(SPEC, hardware=replace(ZERO2, gpu_memory=gpu_memory), **changes)


def test_the_recipe_fits_80_and_not_40() -> None:
    assert fits(on(80)) and not fits(on(40))


@pytest.mark.parametrize("gpu_memory", [16, 24, 40, 48, 56])
def test_what_is_reported_to_fit_does(gpu_memory: float) -> None:
    found = suggestions.suggest(on(gpu_memory), count)
    assert found
    for one in found:
        assert one.fits == fits(one.spec)
        assert one.peak == peak(one.spec)[1]
        assert f"{one.peak / memory.GIB:.1f} GiB" in str(one)


def test_a_change_that_costs_nothing_comes_first() -> None:
    """Without checkpointing a long batch does not fit: switching it on is enough, and named first."""
    spec = on(80, checkpointing=False, per_device=4, lengths=LONG)
    assert not fits(spec)
    first = suggestions.suggest(spec, count)[0]
    assert first.changes == ("gradient_checkpointing: true",) and first.fits


def test_a_smaller_batch_keeps_the_update() -> None:
    words, smaller = next(iter(suggestions._smaller_batch(replace(SPEC, per_device=4))))
    assert (smaller.per_device, smaller.accumulation, smaller.steps_per_generation) == (2, 2, 4)
    assert words == "per_device_train_batch_size: 2, gradient_accumulation_steps: 2, steps_per_generation: 4"
    assert smaller.generation_rows == 4 * SPEC.steps_per_generation
    sft = replace(SPEC, rl=False, per_device=4, steps_per_generation=1, beta=0.0)
    words, smaller = next(iter(suggestions._smaller_batch(sft)))
    assert "steps_per_generation" not in words and smaller.generation_rows == 2


def test_evaluation_can_be_what_is_too_large() -> None:
    spec = SPEC.with_settings(evaluate=SPEC.settings.evaluate.model_copy(update={"batch_size": 1024}))
    assert peak(spec)[0] == "evaluation"
    found = suggestions.suggest(spec, count)
    assert found[0].changes[0].startswith("fieldmark.evaluate.batch_size: ")


def test_several_changes_where_one_is_not_enough_and_the_closest_miss_where_none_are() -> None:
    hungry = on(8, lengths=LONG, max_completion_length=3500)
    (together,) = suggestions.suggest(hungry, count)
    assert len(together.changes) > 1
    (miss,) = suggestions.suggest(on(4), count)
    assert not miss.fits and miss.peak < peak(on(4))[1]


def test_four_bits_leave_deepspeed() -> None:
    words, spec = next(iter(suggestions._four_bits(SPEC)))
    assert spec.settings.quantize == "4bit" and not spec.hardware.deepspeed and spec.lora == Lora(r=32, alpha=64)
    assert "accelerate_configs/ddp_multi_gpu.yaml" in words
