"""Open and load checkpoints: model, processor, family and convention, in full precision or 4 bits, with adapters.

`open_checkpoint` does not read the weights, so that wrong inputs are found within seconds.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field

from mllm.config import Lora, Part
from mllm.errors import ConfigError, FamilyError, FieldmarkError
from mllm.io import strict_json
from mllm.io.files import is_file, no_such
from mllm.models import families, loading_checks
from mllm.models.builtin import weights_folder
from mllm.models.families import Budget, Convention, Family
from mllm.models.parts import add_adapters, freeze_parts
from mllm.models.processors import load_processor


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint without its weights. `adapter` is None for whole models."""

    base: str
    adapter: str | None
    family: Family
    convention: Convention
    processor: Any


@dataclass(frozen=True)
class Loaded:
    """A model in memory, with everything needed to prompt it and to parse its completions."""

    model: Any
    processor: Any
    family: Family
    convention: Convention


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How weights are loaded.

    dtype: of the weights: `float32`, `bfloat16` or `float16`.
    device: `auto` is the accelerator if there is one, None the CPU. A 4-bit model always goes to the accelerator.
    attention: attention implementation of transformers.
    quantize: `4bit` loads the base in NF4 (bitsandbytes; also on a CPU, slowly). Raises ConfigError for other values.
    """

    dtype: str = "float32"
    device: str | None = None
    attention: str = "sdpa"
    quantize: str | None = None

    def __post_init__(self) -> None:
        if self.quantize not in (None, "4bit"):
            raise ConfigError(f"quantize must be 4bit or left out, got {self.quantize!r}")


def open_checkpoint(
    name: str | Path,
    *,
    adapter: str | Path | None = None,
    family: str | None = None,
    style: str | None = None,
    visual_tokens: int | None = None,
    min_visual_tokens: int | None = None,
) -> Checkpoint:
    """Open a checkpoint without reading its weights.

    Args:
        name: folder, adapter folder, Hub name, or `pocket`.
        adapter: an adapter folder to put on `name`.
        family: only where there is no `fieldmark.json` beside the weights (a checkpoint from the Hub).
        style: prompt style; None keeps the checkpoint's own.
        visual_tokens, min_visual_tokens: bounds of the image budget; None keeps the checkpoint's own.

    Raises:
        FamilyError: no convention and no `family`, an unknown family, or one that does not fit the model type.
        FieldmarkError: no such folder; files that are missing or torn; no tokenizer, chat template or preprocessor.
    """
    base, found = base_and_adapter(str(name))
    adapter = str(adapter) if adapter is not None else found
    config = model_config(base)
    loading_checks.check_weights(Path(base), needed=False)  # they may still be in DeepSpeed's shards
    if adapter is not None:
        loading_checks.check_weights(Path(adapter), "adapter_model", needed=False)
    if family is not None:
        families.load(family)  # a mistyped name is an error, also where the one beside the weights is used
    saved = saved_convention(base, adapter)
    if not saved and family is None:
        raise families.not_named(base, config.model_type)
    built = families.load(saved.family if saved else str(family))
    if built.model_type != config.model_type:
        raise FamilyError(
            f"{name}: family {built.name!r} is for model type {built.model_type}, but the weights are of type "
            f"{config.model_type}. Name the right family (in fieldmark.json, or `family`)."
        )
    processor = load_processor(base, config)
    own = processor.image_processor.size
    old = saved.budget if saved else Budget(int(own["shortest_edge"]), int(own["longest_edge"]))
    budget = narrow_budget(built, old, min_visual_tokens, visual_tokens)
    processor.image_processor.size = budget.size
    prompt = style or (saved.prompt if saved else "direct")
    convention = replace(saved, prompt=prompt, budget=budget) if saved else Convention(built.name, prompt, budget)
    return Checkpoint(base, adapter, built, convention, processor)


def load(
    name: str | Path | Checkpoint,
    options: LoadOptions = LoadOptions(),  # noqa: B008 - frozen
    *,
    freeze: Iterable[Part] = (),
    lora: Lora | None = None,
    trainable: bool = False,
    **opening: Any,
) -> Loaded:
    """Load a model with its processor.

    Args:
        name: as in `open_checkpoint`, or what it returned; `opening` are its other arguments.
        options: dtype, device, attention and quantization.
        freeze: parts to freeze. Ignored with adapters, which freeze the whole base.
        lora: add new adapters, or, where the checkpoint has one already, continue to train that one.
        trainable: continue to train the checkpoint's adapter.

    Raises FieldmarkError: as `open_checkpoint`; weights that cannot be read; a device that is not there.
    """
    device = None if options.device is None else device_of(options.device)  # before minutes of reading
    checkpoint = name if isinstance(name, Checkpoint) else open_checkpoint(name, **opening)
    loading_checks.check_weights(Path(checkpoint.base))
    if checkpoint.adapter is not None:
        loading_checks.check_weights(Path(checkpoint.adapter), "adapter_model")
    model = _base_model(checkpoint.base, options)
    quantized = options.quantize is not None
    if checkpoint.adapter is not None:
        model = _with_saved_adapter(model, checkpoint.adapter, trainable=trainable or lora is not None)
    elif lora is not None:
        model = add_adapters(model, checkpoint.base, checkpoint.family, lora, quantized=quantized)
    else:
        freeze_parts(model, get_args(Part) if quantized else freeze)  # quantized weights take no gradients
    if device is not None and not quantized:
        model = model.to(device)
    return Loaded(model.eval(), checkpoint.processor, checkpoint.family, checkpoint.convention)


def _base_model(base: str, options: LoadOptions) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    extra = _four_bits(options.dtype) if options.quantize else {}
    with loading_checks.one_sentence(f"{base}: the weights cannot be loaded"):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            base,
            dtype=getattr(torch, options.dtype),
            attn_implementation=options.attention,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are named below
            output_loading_info=True,
            **extra,
        )
    model, info = loaded
    loading_checks.check_loaded(base, info)
    return model


def _with_saved_adapter(model: Any, adapter: str, *, trainable: bool) -> Any:
    from peft import PeftModel

    advice = "it may belong to another base: see base_model_name_or_path and r in its adapter_config.json"
    with loading_checks.one_sentence(f"{adapter}: the adapter cannot be put on its base", advice):
        adapted = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        result = adapted.load_adapter(adapter, "default", is_trainable=trainable)  # once more, for its result
    loading_checks.check_loaded(adapter, result._asdict(), "adapter_config.json")
    if result.unexpected_keys:
        raise FieldmarkError(
            f"{adapter}: {len(result.unexpected_keys)} weights have no place in its base (first: "
            f"{result.unexpected_keys[0]}); {advice}"
        )
    return adapted


class _AdapterConfig(BaseModel):
    base_model_name_or_path: str = Field(min_length=1)


def base_and_adapter(name: str) -> tuple[str, str | None]:
    """Split a name into base and adapter folder; `pocket` becomes the folder of the committed weights."""
    if name == "pocket":
        return str(weights_folder()), None
    folder = Path(name)
    if is_file(folder / "adapter_config.json"):
        loading_checks.check_texts(folder)
        advice = "write the name of the base there"
        config = strict_json.read(folder / "adapter_config.json", _AdapterConfig, advice=advice)
        base = config.base_model_name_or_path
        if is_file(Path(base) / "adapter_config.json"):
            raise FieldmarkError(f"{name}: its base {base} is an adapter too; merge that one into its base first")
        try:
            return base_and_adapter(base)[0], name
        except FieldmarkError as error:
            raise FieldmarkError(f"{folder / 'adapter_config.json'}: base_model_name_or_path: {error}") from None
    is_dir = os.path.isdir(folder)  # pathlib's own raises for a name that is too long for a path
    if not is_dir and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise FieldmarkError(f"{no_such(name, 'checkpoint folder')} (and not a name of the form owner/model)")
    if is_dir and not (folder / "config.json").is_file():
        raise FieldmarkError(f"{name}: not a checkpoint: neither config.json nor adapter_config.json found")
    return name, None


def saved_convention(base: str, adapter: str | None) -> Convention | None:
    """Return the convention beside an adapter, else that beside its base; None where there is none."""
    places = [one for one in (adapter, base) if one is not None and (Path(one) / families.CONVENTION_FILE).is_file()]
    return families.read_convention(places[0]) if places else None


def model_config(base: str) -> Any:
    """Return transformers' configuration of a checkpoint. Raises FieldmarkError: one that cannot be read."""
    from transformers import AutoConfig

    loading_checks.check_texts(Path(base))
    advice = "name a checkpoint of " + ", ".join(sorted({families.load(name).model_type for name in families.names()}))
    with loading_checks.one_sentence(f"{base}: not a readable checkpoint of a known architecture", advice):
        return AutoConfig.from_pretrained(base, trust_remote_code=False)


def narrow_budget(family: Family, old: Budget, min_tokens: int | None, max_tokens: int | None) -> Budget:
    """Return a budget with the given bounds in visual tokens; None keeps the old bound."""
    token = family.factor**2  # pixels per visual token
    high = max_tokens * token if max_tokens else old.max_pixels
    low = min_tokens * token if min_tokens else min(old.min_pixels, high)
    return Budget(min_pixels=low, max_pixels=high)


def _four_bits(dtype: str) -> dict[str, Any]:
    """Return arguments to load the base in NF4 on this process's own device (Dettmers et al. 2023)."""
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


def device_of(name: str) -> str:
    """Return a device; `auto` is this process's accelerator if there is one, otherwise the CPU.

    Raises ConfigError: a device that this machine does not have.
    """
    import torch

    if name != "auto":
        try:
            torch.zeros(1, device=name).item()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].split(" device type at start")[0]
            raise ConfigError(f"device {name!r} cannot be used: {reason:.200}; give auto, cpu or cuda") from None
        return name
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return "cpu"
    rank = os.environ.get("LOCAL_RANK")  # set by the launcher; without it all processes would share the first GPU
    return accelerator.type if rank is None else f"{accelerator.type}:{int(rank) % torch.accelerator.device_count()}"
