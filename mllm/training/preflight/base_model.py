"""The base model of a run: the checkpoint that its first recipe starts from, its tokenizer, its image budget."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from mllm.config import Lora, Part, Settings
from mllm.errors import FamilyError
from mllm.io import strict_json
from mllm.models import checkpoint, families
from mllm.models.checkpoint import Checkpoint
from mllm.models.families import Budget, Convention, Family
from mllm.training import recipe
from mllm.training.preflight import Finding, parameters
from mllm.training.recipe import Recipe

_MODULES: dict[str, Part] = {"blocks": "vision", "merger": "projector", "language_model": "llm"}


@dataclass(frozen=True)
class BaseModel:
    """The model of a run: where it comes from, its configuration and family, and the adapters that are trained."""

    name: str
    config: Any
    family: Family
    published: int | None
    lora: Lora | None
    visual_tokens: int | None
    min_visual_tokens: int | None

    @property
    def budget(self) -> Budget:
        """The image budget of the settings, within the family's own."""
        return checkpoint.narrow_budget(self.family, self.family.budget, self.min_visual_tokens, self.visual_tokens)

    @property
    def most_visual_tokens(self) -> int:
        """The visual tokens of the largest image."""
        return self.budget.max_pixels // self.family.factor**2


def find_model(read: Recipe) -> BaseModel:
    """Find what the run starts from: its folder, or the checkpoint that the first recipe before it starts from.

    Raises:
        FamilyError: the recipe names a family of another model type.
    """
    first = recipe.origin(read)
    settings = read.settings
    name = settings.model if settings.model == "pocket" or Path(settings.model).is_dir() else first.model
    base, adapter = checkpoint.base_and_adapter(name) if Path(name).is_dir() or name == "pocket" else (name, None)
    saved = checkpoint.saved_convention(base, adapter)
    family_name = settings.family or first.family or (saved and saved.family)
    chosen = families.load(family_name) if family_name else None
    config, family, published = parameters.config_of(name if name == "pocket" else base, chosen)
    if chosen is not None and chosen.model_type != config.model_type:
        raise FamilyError(
            f"family {chosen.name!r} is for model type {chosen.model_type}, but the model's is {config.model_type}"
        )
    lora = _saved_lora(adapter) if adapter else first.lora or settings.lora
    most, least = (getattr(settings, key) or getattr(first, key) for key in ("visual_tokens", "min_visual_tokens"))
    return BaseModel(name, config, chosen or family, published, lora, most, least)


def open_processor(settings: Settings, model: BaseModel) -> tuple[Checkpoint, Finding]:
    """Open tokenizer and image processor if they are on this machine; the network is not used."""
    from huggingface_hub import try_to_load_from_cache

    here = model.name == "pocket" or Path(model.name).is_dir()
    if here or isinstance(try_to_load_from_cache(model.name, "tokenizer_config.json"), str):
        opened = checkpoint.open_checkpoint(
            model.name,
            family=model.family.name,
            style=settings.style,
            visual_tokens=model.visual_tokens,
            min_visual_tokens=model.min_visual_tokens,
        )
        return opened, Finding("tokenizer", "good", (f"of {model.name}",))
    convention = Convention(model.family.name, settings.style, model.budget)
    bare = Checkpoint(model.name, None, model.family, convention, None)
    lines = [
        f"{model.name} is not on this machine, so words are not counted; memory is estimated for the longest row that "
        f"max_tokens_per_sample allows"
    ]
    if model.visual_tokens is None:
        most = model.most_visual_tokens
        lines.append(f"its own image budget is unknown here: {most} visual tokens are assumed; set visual_tokens")
    lines.append(f'hf download {model.name} --exclude "*.safetensors"')
    return bare, Finding("tokenizer", "not checked", tuple(lines))


class _AdapterConfig(pydantic.BaseModel):
    """The fields of PEFT's adapter_config.json that decide an adapter's size."""

    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Any = None


def _saved_lora(adapter: str) -> Lora:
    """Return the settings of a saved adapter, which is trained further at its own rank."""
    config = strict_json.read(Path(adapter) / "adapter_config.json", _AdapterConfig)
    parts: tuple[Part, ...] = tuple(part for module, part in _MODULES.items() if module in str(config.target_modules))
    return Lora(r=config.r, alpha=config.lora_alpha, dropout=config.lora_dropout, parts=parts or ("llm",))
