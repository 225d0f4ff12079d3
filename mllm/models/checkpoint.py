"""Checkpoint folder -> model, processor, family and convention. Freezing, LoRA, QLoRA and the image budget.

A folder of Fieldmark's carries `fieldmark.json`: family, prompt style, budget. A folder with `adapter_config.json` is
an adapter: its base is loaded first and the adapter put on top, unmerged. `open_checkpoint` needs no weights, so that
bad inputs are found in seconds.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field

from mllm.config import Lora, Part
from mllm.errors import ConfigError, FamilyError, FieldmarkError
from mllm.io import strict_json
from mllm.io.files import is_file
from mllm.models import families
from mllm.models.builtin import weights_folder
from mllm.models.families import Budget, Convention, Family
from mllm.models.processors import load_processor

logger = logging.getLogger(__name__)

_PROJECTOR = re.compile(r"\bvisual\.(merger|deepstack_merger_list)\b")
_VISION = re.compile(r"\bvisual\b")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of itself, read without its weights. `adapter` is None for whole models."""

    base: str
    adapter: str | None
    family: Family
    convention: Convention
    processor: Any


@dataclass(frozen=True)
class Loaded:
    """A model ready to use, with all that is needed to ask it and to read it."""

    model: Any
    processor: Any
    family: Family
    convention: Convention


def open_checkpoint(
    name: str | Path,
    *,
    adapter: str | Path | None = None,
    family: str | None = None,
    style: str | None = None,
    visual_tokens: int | None = None,
    min_visual_tokens: int | None = None,
) -> Checkpoint:
    """Read what a checkpoint is, without its weights.

    Args:
        name: folder, adapter folder, Hub name, or `pocket`.
        adapter: an adapter folder to put on top of `name`.
        family: only where there is no `fieldmark.json` beside the weights (a checkpoint from the Hub).
        style: prompt style; None keeps the checkpoint's own.
        visual_tokens, min_visual_tokens: bounds of the image budget; None keeps the checkpoint's own.

    Raises:
        FamilyError: no convention and no `family`, an unknown family, or a family that is not this model's.
        FieldmarkError: no such folder.
    """
    base, found = base_and_adapter(str(name))
    adapter = str(adapter) if adapter is not None else found
    config = _model_config(base)
    saved = _convention([adapter, base])
    built = families.load(saved.family if saved else _family(base, family, config.model_type))
    if built.model_type != config.model_type:
        raise FamilyError(
            f"{name}: its family is said to be {built.name!r}, which goes with model type {built.model_type}, but the "
            f"weights are of type {config.model_type}. Name the right family (in fieldmark.json, or `family`)."
        )
    processor = load_processor(base)
    budget = narrowed(built, saved.budget if saved else _own_budget(processor), min_visual_tokens, visual_tokens)
    set_budget(processor, budget)
    prompt = style or (saved.prompt if saved else "direct")
    convention = replace(saved, prompt=prompt, budget=budget) if saved else Convention(built.name, prompt, budget)
    return Checkpoint(base, adapter, built, convention, processor)


def load(
    name: str | Path | Checkpoint,
    *,
    dtype: str = "float32",
    device: str | None = None,
    adapter: str | Path | None = None,
    freeze: Iterable[Part] = (),
    lora: Lora | None = None,
    attn: str = "sdpa",
    quantize: str | None = None,
    trainable: bool = False,
    **opening: Any,
) -> Loaded:
    """Load a model with its processor.

    Args:
        name: as in `open_checkpoint`, or what that returned; `opening` are its other arguments.
        dtype: `float32`, `bfloat16` or `float16`, of the weights.
        device: where to put the model; `auto` takes an accelerator if there is one; None leaves it on the CPU. A model
            in 4 bits is put on this process's accelerator, where there is one, whatever is asked.
        adapter: an adapter folder to put on top.
        freeze: parts whose weights stay as they are (not used with adapters, which freeze the whole base).
        lora: put fresh adapters on the model, or, when there is an adapter already, go on training that one.
        attn: attention kernel.
        quantize: `4bit` holds the base in NF4 (bitsandbytes; on a CPU too, slowly).
        trainable: go on training the adapter that was found.

    Raises:
        FieldmarkError: as `open_checkpoint`; weights that cannot be read.
        ConfigError: another `quantize`.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    checkpoint = name if isinstance(name, Checkpoint) else open_checkpoint(name, adapter=adapter, **opening)
    extra: dict[str, Any] = {}
    if quantize not in (None, "4bit"):
        raise ConfigError(f"quantize: 4bit, or nothing; got {quantize!r}")
    if quantize == "4bit":
        extra |= _four_bits(dtype)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint.base, dtype=getattr(torch, dtype), attn_implementation=attn, trust_remote_code=False,
            use_safetensors=True, **extra,
        )  # fmt: skip
    except OSError as error:
        raise FieldmarkError(f"{checkpoint.base}: the weights cannot be read (safetensors): {error}") from error
    if checkpoint.adapter is not None:
        from peft import PeftModel

        folder = Path(checkpoint.adapter)
        if folder.is_dir() and not (folder / "adapter_model.safetensors").is_file():
            raise FieldmarkError(f"{folder}: no adapter_model.safetensors in it; pickled weights are not loaded")
        model = PeftModel.from_pretrained(model, checkpoint.adapter, is_trainable=trainable or lora is not None)
    elif lora is not None:
        model = with_adapters(model, checkpoint, lora, quantized=quantize is not None)
    else:
        freeze_parts(model, get_args(Part) if quantize else freeze)  # whole numbers take no gradients
    if device is not None and quantize is None:
        model = model.to(_device(device))  # pyright: ignore[reportArgumentType]
    return Loaded(model.eval(), checkpoint.processor, checkpoint.family, checkpoint.convention)


def part_of(parameter: str) -> Part:
    """Say which part of the model a parameter belongs to, by its name (Qwen-VL naming)."""
    if _PROJECTOR.search(parameter):
        return "projector"
    return "vision" if _VISION.search(parameter) else "llm"


def freeze_parts(model: Any, parts: Iterable[Part]) -> None:
    """Switch off training of the named parts, and on of the others."""
    frozen = set(parts)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) not in frozen)


def trainable_by_part(model: Any) -> dict[str, tuple[int, int]]:
    """Count (trainable, all) parameters of each part: what freezing really froze."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        size = getattr(parameter, "ds_numel", parameter.numel())  # ZeRO-3 leaves an empty shell here
        trained, total = counts.get(part_of(name), (0, 0))
        counts[part_of(name)] = (trained + size * parameter.requires_grad, total + size)
    return counts


def set_budget(processor: Any, budget: Budget) -> None:
    """Make the processor shrink and enlarge images to the budget (pixel counts after resizing)."""
    processor.image_processor.size = budget.size


class _Adapter(BaseModel):
    """What is read of adapter_config.json."""

    base_model_name_or_path: str = Field(min_length=1)


def base_and_adapter(name: str) -> tuple[str, str | None]:
    """Split a name into base and adapter folder; `pocket` becomes the folder of the committed weights."""
    if name == "pocket":
        return str(weights_folder()), None
    folder = Path(name)
    if is_file(folder / "adapter_config.json"):
        said = strict_json.read(folder / "adapter_config.json", _Adapter, advice="write the name of the base there")
        base = said.base_model_name_or_path
        if is_file(Path(base) / "adapter_config.json"):
            raise FieldmarkError(f"{name}: its base {base} is an adapter too; merge that one into its base first")
        return base_and_adapter(base)[0], name
    is_dir = os.path.isdir(folder)  # false too for what is too long for a path, where pathlib's own raises
    if not is_dir and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise FieldmarkError(f"{name}: no such checkpoint folder (and no name of the form owner/model)")
    if is_dir and not (folder / "config.json").is_file():
        raise FieldmarkError(f"{name}: no config.json and no adapter_config.json in it: this folder is no checkpoint")
    return name, None


def _model_config(base: str) -> Any:
    """Read the model's config; errors name the checkpoint."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise FieldmarkError(f"{base}: no readable checkpoint of a known architecture: {error}") from error


def _convention(folders: Sequence[str | None]) -> Convention | None:
    """Return the convention saved in the first folder that has one."""
    for folder in folders:
        if folder is not None and (Path(folder) / families.CONVENTION_FILE).is_file():
            return families.read_convention(folder)
    return None


def _family(base: str, named: str | None, model_type: str) -> str:
    """Return the family that was named for a checkpoint without a convention; nobody guesses it."""
    if named is None:
        fitting = [name for name in families.names() if families.load(name).model_type == model_type]
        raise FamilyError(
            f"{base}: no {families.CONVENTION_FILE} beside the weights, so nobody knows how this model writes boxes. "
            f"Set `family` (for model type {model_type}: {' or '.join(fitting) or 'none is known'})."
        )
    return named


def _own_budget(processor: Any) -> Budget:
    """Return the image budget that a checkpoint's own image processor came with."""
    size = processor.image_processor.size
    return Budget(min_pixels=int(size["shortest_edge"]), max_pixels=int(size["longest_edge"]))


def narrowed(family: Family, old: Budget, least: int | None, most: int | None) -> Budget:
    """Replace the bounds of a budget by those given in visual tokens."""
    token = family.factor**2  # pixels of the image that one visual token covers
    high = most * token if most else old.max_pixels
    low = least * token if least else min(old.min_pixels, high)
    return Budget(min_pixels=low, max_pixels=high)


def with_adapters(model: Any, checkpoint: Checkpoint, lora: Lora, *, quantized: bool) -> Any:
    """Put fresh adapters on the linear layers of the named parts."""
    from peft import LoraConfig, get_peft_model
    from transformers.integrations import is_deepspeed_zero3_enabled

    targets = "|".join(f"(?:{checkpoint.family.lora_targets[part]})" for part in lora.parts)
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    # ZeRO-3 gathers persistent parameters of one dtype only, so there the adapters keep the base's; elsewhere they are
    # float32, which small updates need.
    adapted = get_peft_model(model, config, autocast_adapter_dtype=quantized or not is_deepspeed_zero3_enabled())

    if Path(checkpoint.base) == _or_none(weights_folder):
        adapted.peft_config["default"].base_model_name_or_path = "pocket"  # the path differs from machine to machine
    return adapted


def _or_none(folder: Any) -> Path | None:
    """Return the folder, or None where the committed weights are missing."""
    try:
        return folder()
    except FieldmarkError:
        return None


def _four_bits(dtype: str) -> dict[str, Any]:
    """Arguments that make transformers load the base in NF4 on this process's own device (Dettmers et al. 2023)."""
    import torch
    from accelerate import PartialState
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    here = PartialState().local_process_index if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": here}}


def _device(name: str) -> str:
    """Return the device: `auto` is the accelerator of this machine, of several this process's own, else the CPU."""
    import torch

    if name != "auto":
        return name
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return "cpu"
    rank = os.environ.get("LOCAL_RANK")  # from the launcher; without it eight processes would share the first GPU
    return accelerator.type if rank is None else f"{accelerator.type}:{int(rank) % torch.accelerator.device_count()}"
