"""Models at their real size without weights: counts as published, by part, with adapters, in four bits."""

from __future__ import annotations

import pytest

from mllm.config import Lora, Settings
from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.training.preflight import parameters

# Totals of the safetensors files on the Hub.
PUBLISHED = {
    "Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
}


def test_every_named_checkpoint_is_here() -> None:
    named = {name: one.parameters for line in families.names() for name, one in families.load(line).checkpoints.items()}
    assert named == PUBLISHED
    assert families.published("Qwen/Qwen9") is None


@pytest.mark.ci
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_make_the_published_number_of_parameters(name: str) -> None:
    config, family, published = parameters.config_of(name, None)
    counts = parameters.count(config, family, Settings(), None)
    assert counts.parameters == published == PUBLISHED[name]
    assert counts.trained == {"vision": 0, "projector": 0, "llm": counts.total["llm"]}
    assert counts.head_trained and not counts.trains_vision and counts.adapters == counts.quantized == 0


def test_adapters_and_four_bits_by_hand() -> None:
    """Qwen3-VL-8B, rank 32: 32 (in + out) for each of seven projections of 36 layers; linear weights but the head."""
    config, family, _ = parameters.config_of("Qwen/Qwen3-VL-8B-Instruct", None)
    lora = Lora(r=32)
    counts = parameters.count(config, family, Settings(lora=lora, quantize="4bit"), lora)
    h, k, f = 4096, 1024, 12288
    assert counts.adapters == 36 * 32 * ((h + h) + 2 * (h + k) + (h + h) + 2 * (h + f) + (f + h)) == 87_293_952
    language = 36 * (2 * h * h + 2 * h * k + 3 * h * f)
    vision = 27 * (1152 * 3 * 1152 + 1152 * 1152 + 2 * 1152 * 4304) + 4 * (4608 * 4608 + 4608 * h)
    assert counts.quantized == language + vision
    assert counts.adapted_features == 6 * h + f
    assert counts.trainable == counts.adapters and not counts.head_trained
    assert counts.parameters == PUBLISHED["Qwen/Qwen3-VL-8B-Instruct"]


def test_what_is_not_frozen_is_counted() -> None:
    config, family, _ = parameters.config_of("pocket", None)
    counts = parameters.count(config, family, Settings(freeze_vision=False, freeze_llm=True), None)
    assert counts.trained == {"vision": counts.total["vision"], "projector": 0, "llm": 0}
    assert counts.trains_vision and not counts.head_trained


def test_sizes_of_the_two_other_lines() -> None:
    two = parameters.dimensions(parameters.config_of("Qwen/Qwen2-VL-7B-Instruct", None)[0])
    assert (two.head_dim, two.vision_hidden, two.vision_inner, two.patch_values) == (128, 1280, 5120, 1176)
    assert (two.normed, two.gated) == (False, False)
    half = parameters.dimensions(parameters.config_of("Qwen/Qwen2.5-VL-3B-Instruct", None)[0])
    assert (half.hidden, half.vision_inner, half.gated, half.kv_heads) == (2048, 3420, True, 2)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(FieldmarkError, match="Qwen/Qwen9: neither.*Qwen/Qwen2-VL-2B-Instruct"):
        parameters.config_of("Qwen/Qwen9", None)
