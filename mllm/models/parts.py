"""The parts of a model (vision, projector, llm): freezing them, and LoRA adapters on them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mllm.config import Lora, Part
from mllm.models.builtin import WEIGHTS
from mllm.models.families import Family


def part_of(parameter: str) -> Part:
    """Return the part that a parameter belongs to, from its name in the Qwen-VL models."""
    if re.search(r"\bvisual\.(merger|deepstack_merger_list)\b", parameter):
        return "projector"
    return "vision" if re.search(r"\bvisual\b", parameter) else "llm"


def freeze_parts(model: Any, parts: Iterable[Part]) -> None:
    """Freeze the given parts and make all others trainable."""
    frozen = set(parts)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) not in frozen)


def trainable_by_part(model: Any) -> dict[str, tuple[int, int]]:
    """Count (trainable, all) parameters of each part."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        size = getattr(parameter, "ds_numel", parameter.numel())  # under ZeRO-3 numel() is 0
        trained, total = counts.get(part_of(name), (0, 0))
        counts[part_of(name)] = (trained + size * parameter.requires_grad, total + size)
    return counts


def add_adapters(model: Any, base: str, family: Family, lora: Lora, *, quantized: bool) -> Any:
    """Put new LoRA adapters on the linear layers of `lora.parts`; `base` is the model's folder or Hub name."""
    from peft import LoraConfig, get_peft_model
    from transformers.integrations import is_deepspeed_zero3_enabled

    targets = "|".join(f"(?:{family.lora_targets[part]})" for part in lora.parts)
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    # Small updates need float32 adapters. ZeRO-3 gathers parameters of one dtype only, so there they keep the base's.
    adapted = get_peft_model(model, config, autocast_adapter_dtype=quantized or not is_deepspeed_zero3_enabled())
    if Path(base) == WEIGHTS / "base":
        adapted.peft_config["default"].base_model_name_or_path = "pocket"  # the path differs between machines
    return adapted
