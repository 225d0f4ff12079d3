"""Parameter counts of a model at its real size, built on torch's meta device: all shapes, no memory for weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.config import Lora, Part, Settings
from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.models.checkpoint import base_and_adapter, model_config, saved_convention
from mllm.models.families import Family
from mllm.models.parts import add_adapters, freeze_parts, part_of

PARTS: tuple[Part, ...] = ("vision", "projector", "llm")


@dataclass(frozen=True)
class Dimensions:
    """What decides activations and caches. `hidden` and so on are those of the language model.

    `heads` x `head_dim` are the queries' features; `normed`: queries and keys are normalised (Qwen3); `gated`: the
    vision tower's MLP has a gate (Qwen2.5-VL). `patches` make one visual token; `patch_values` are the numbers in one
    patch (channels x frames x side x side).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    normed: bool
    vision_layers: int
    vision_hidden: int
    vision_inner: int
    gated: bool
    patches: int
    patch_values: int


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model as a recipe trains it, counted on its real modules.

    `trained` and `total` count by part, without adapters; `adapters` are trained beside them. `quantized` of the total
    are held in 4 bits. `head_trained`: the output layer's weights get gradients. `adapted_features` is the sum of the
    input features of all linear layers of one decoder layer that have an adapter.
    """

    dimensions: Dimensions
    total: Mapping[Part, int]
    trained: Mapping[Part, int]
    adapters: int
    quantized: int
    head_trained: bool
    adapted_features: int

    @property
    def parameters(self) -> int:
        """All parameters of the base."""
        return sum(self.total.values())

    @property
    def trainable(self) -> int:
        """Parameters that get gradients, adapters included."""
        return sum(self.trained.values()) + self.adapters

    @property
    def trains_vision(self) -> bool:
        """Whether the backward pass goes through the vision tower."""
        return bool(self.trained["vision"])


CountParameters = Callable[[Settings, Lora | None], ParameterCounts]


def config_of(model: str, family: Family | None) -> tuple[Any, Family, int | None]:
    """Return a checkpoint's configuration, its family, and its published number of parameters (None: not published).

    Works offline: `model` is a Hub name that a family file knows, or a folder.

    Raises:
        FieldmarkError: the name is neither.
    """
    from transformers import CONFIG_MAPPING

    known = families.published(model)
    if known is not None:
        published_family, sizes = known
        tied = {"tie_word_embeddings": sizes.tied}
        parts: dict[str, Any] = {"text_config": {**sizes.text, **tied}, "vision_config": dict(sizes.vision), **tied}
        return CONFIG_MAPPING[published_family.model_type](**parts), published_family, sizes.parameters
    if model == "pocket" or Path(model).is_dir():
        folder, _ = base_and_adapter(model)  # for pocket: the committed weights
        config = model_config(folder)
        if family is None:
            saved = saved_convention(folder, None)
            if saved is None:
                raise families.not_named(folder, config.model_type)
            family = families.load(saved.family)
        return config, family, None
    names = sorted(name for known in map(families.load, families.names()) for name in known.checkpoints)
    raise FieldmarkError(
        f"{model}: neither a local folder nor a checkpoint listed in a family file; listed are {', '.join(names)}"
    )


def counter(config: Any, family: Family) -> CountParameters:
    """Return `count` for one model, with a cache: suggestions count the same variants again and again."""
    known: dict[Any, ParameterCounts] = {}

    def cached(settings: Settings, lora: Lora | None) -> ParameterCounts:
        frozen = (settings.freeze_vision, settings.freeze_projector, settings.freeze_llm)
        key = (lora, settings.quantize, frozen if lora is None else None)
        if key not in known:
            known[key] = count(config, family, settings, lora)
        return known[key]

    return cached


def count(config: Any, family: Family, settings: Settings, lora: Lora | None) -> ParameterCounts:
    """Build the model on the meta device, freeze and adapt it as the recipe says, and count its parameters.

    `family` names the modules that `lora` adapts: the adapters that are trained, new or from an earlier stage.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
        quantized = _quantized(model) if settings.quantize else 0
        if lora is None:
            freeze_parts(model, [part for part in PARTS if getattr(settings, f"freeze_{part}")])
        else:
            model = add_adapters(model, str(config.name_or_path), family, lora, quantized=bool(settings.quantize))
    total, trained, adapters = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0), 0
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            adapters += parameter.numel()
            continue
        total[part_of(name)] += parameter.numel()
        trained[part_of(name)] += parameter.numel() * parameter.requires_grad
    head = model.get_output_embeddings().weight
    adapted = sum(
        module.in_features
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and ".language_model.layers.0." in name
    )
    return ParameterCounts(dimensions(config), total, trained, adapters, quantized, head.requires_grad, adapted)


def dimensions(config: Any) -> Dimensions:
    """Read the sizes that decide activations from a Qwen-VL configuration."""
    text, vision = config.get_text_config(), config.vision_config
    width = getattr(vision, "embed_dim", None) or vision.hidden_size  # Qwen2-VL calls the output's width hidden_size
    inner = getattr(vision, "intermediate_size", None) or int(width * vision.mlp_ratio)
    channels = getattr(vision, "in_channels", 3)
    return Dimensions(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        inner=text.intermediate_size,
        vocabulary=text.vocab_size,
        normed=config.model_type.startswith("qwen3"),
        vision_layers=vision.depth,
        vision_hidden=width,
        vision_inner=inner,
        gated=config.model_type == "qwen2_5_vl",
        patches=vision.spatial_merge_size**2,
        patch_values=channels * vision.temporal_patch_size * vision.patch_size**2,
    )


def _quantized(model: Any) -> int:
    """Count the weights that will be held in 4 bits: those of linear layers, without transformers' own exceptions."""
    from torch.nn import Linear
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = get_keys_to_not_convert(model)
    return sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, Linear) and should_convert_module(name, kept)
    )
