"""A model at its real size on torch's meta device: every shape is there, no byte of weights is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.config import Lora, Part, Settings
from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.models.checkpoint import base_and_adapter
from mllm.models.families import Family
from mllm.models.parts import add_adapters, freeze_parts, part_of

PARTS: tuple[Part, ...] = ("vision", "projector", "llm")


@dataclass(frozen=True)
class Sizes:
    """What decides activations and caches. `hidden` and so on are those of the language model.

    `heads` x `head_dim` are the queries' features; `normed` says that queries and keys are normalised (Qwen3).
    `gated` says that the vision tower's MLP has a gate (Qwen2.5-VL); `patches` make one visual token.
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
    """Numbers in one patch: channels x frames x side x side."""


@dataclass(frozen=True)
class Anatomy:
    """Parameters of a model as a recipe trains it, counted on its real modules.

    `trained` and `total` count by part, adapters left out; `adapters` are trained beside them. `quantized` of the total
    are held in 4 bits. `head_trained` says that the output layer's weights get gradients, `adapted` is the sum of the
    input features of all linear layers of one decoder layer that carry an adapter.
    """

    sizes: Sizes
    total: Mapping[Part, int]
    trained: Mapping[Part, int]
    adapters: int
    quantized: int
    head_trained: bool
    adapted: int

    @property
    def parameters(self) -> int:
        """All parameters of the base."""
        return sum(self.total.values())

    @property
    def learning(self) -> int:
        """Parameters that get gradients, adapters among them."""
        return sum(self.trained.values()) + self.adapters

    @property
    def vision_learns(self) -> bool:
        """Whether the backward pass goes through the vision tower."""
        return bool(self.trained["vision"])


def config_of(model: str, family: Family | None) -> tuple[Any, Family, int | None]:
    """Return a checkpoint's configuration, its family, and its published number of parameters (None: not published).

    A name on the Hub that a family file knows needs no network; a folder is read.

    Raises:
        FieldmarkError: a name that is neither.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    known = families.published(model)
    if known is not None:
        line, sizes = known
        tied = {"tie_word_embeddings": sizes.tied}
        parts: dict[str, Any] = {"text_config": {**sizes.text, **tied}, "vision_config": dict(sizes.vision), **tied}
        config = CONFIG_MAPPING[line.model_type](**parts)
        return config, line, sizes.parameters
    if model == "pocket" or Path(model).is_dir():
        folder, _ = base_and_adapter(model)  # of pocket: where the committed weights are
        saved = families.load(families.read_convention(folder).family) if family is None else family
        return AutoConfig.from_pretrained(folder, trust_remote_code=False), saved, None
    names = sorted(name for line in map(families.load, families.names()) for name in line.checkpoints)
    raise FieldmarkError(
        f"{model}: neither a folder here nor a checkpoint whose sizes a family file holds; those are {', '.join(names)}"
    )


def dissect(config: Any, family: Family, settings: Settings, lora: Lora | None) -> Anatomy:
    """Build the model on the meta device, freeze and adapt it as the recipe says, and count.

    Args:
        config: transformers' configuration.
        family: whose naming `lora` goes by.
        settings: what is frozen, and whether the base is held in 4 bits.
        lora: the adapters that are trained, fresh or made by an earlier stage.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
        quantized = _quantized(model) if settings.quantize else 0
        if lora is None:
            frozen: dict[Part, bool] = {p: getattr(settings, f"freeze_{p}") for p in PARTS}
            freeze_parts(model, [part for part, on in frozen.items() if on])
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
    return Anatomy(
        sizes_of(config), total, trained, adapters, quantized, head.requires_grad, _adapted(model) if lora else 0
    )


def sizes_of(config: Any) -> Sizes:
    """Read the sizes that decide activations off a Qwen-VL configuration."""
    text, vision = config.get_text_config(), config.vision_config
    width = getattr(vision, "embed_dim", None) or vision.hidden_size  # Qwen2-VL calls the output's width hidden_size
    inner = getattr(vision, "intermediate_size", None) or int(width * vision.mlp_ratio)
    channels = getattr(vision, "in_channels", 3)
    return Sizes(
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
    """Count the weights that will be held in 4 bits: those of linear layers, less transformers' own exceptions."""
    from torch.nn import Linear
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = get_keys_to_not_convert(model)
    return sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, Linear) and should_convert_module(name, kept)
    )


def _adapted(model: Any) -> int:
    """Sum the input features of the adapted linear layers of the language model's first layer."""
    return sum(
        module.in_features
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and ".language_model.layers.0." in name
    )
