"""What a run starts from: the checkpoint at the beginning of its recipes, its tokenizer, its image budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

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
class Model:
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
        """The image budget that the settings ask for, within the family's own."""
        return checkpoint.narrow_budget(self.family, self.family.budget, self.min_visual_tokens, self.visual_tokens)


def find_model(read: Recipe) -> Model:
    """Find what the run starts from: its folder, or the checkpoint at the beginning of the recipes before it."""
    first = recipe.origin(read)
    settings = read.settings
    name = settings.model if settings.model == "pocket" or Path(settings.model).is_dir() else first.model
    named = settings.family or first.family
    base, adapter = checkpoint.base_and_adapter(name) if Path(name).is_dir() or name == "pocket" else (name, None)
    line = families.load(named) if named else None
    config, family, published = parameters.config_of(name if name == "pocket" else base, line)
    if line is not None:
        family = _same_type(line, config)
    lora = _saved_lora(adapter) if adapter else first.lora or settings.lora
    return Model(
        name,
        config,
        family,
        published,
        lora,
        settings.visual_tokens or first.visual_tokens,
        settings.min_visual_tokens or first.min_visual_tokens,
    )


def open_processor(settings: Settings, model: Model) -> tuple[Checkpoint, Finding]:
    """Open tokenizer and image processor where they are on this machine; nothing is asked of the network."""
    from huggingface_hub import try_to_load_from_cache

    here = model.name == "pocket" or Path(model.name).is_dir()
    if here or isinstance(try_to_load_from_cache(model.name, "tokenizer_config.json"), str):
        opened = checkpoint.open_checkpoint(
            model.name,
            family=None if here else model.family.name,
            style=settings.style,
            visual_tokens=model.visual_tokens,
            min_visual_tokens=model.min_visual_tokens,
        )
        return opened, Finding("tokenizer", "good", (f"that of {model.name}",))
    convention = Convention(model.family.name, settings.style, model.budget)
    bare = Checkpoint(model.name, None, model.family, convention, None)
    lines = [
        f"{model.name} is not on this machine, so words are not counted; memory is worked out for the longest row that "
        f"max_tokens_per_sample lets pass"
    ]
    if model.visual_tokens is None:
        most = model.budget.max_pixels // model.family.factor**2
        lines.append(f"its own image budget is not known here: {most} visual tokens are taken; set visual_tokens")
    lines.append(f'hf download {model.name} --exclude "*.safetensors"')
    return bare, Finding("tokenizer", "not checked", tuple(lines))


def _same_type(family: Family, config: Any) -> Family:
    """Return the family that a recipe names, after seeing that it goes with the model."""
    if family.model_type != config.model_type:
        raise FamilyError(
            f"family {family.name!r} goes with model type {family.model_type}, the model's is {config.model_type}"
        )
    return family


class _Adapter(BaseModel):
    """What PEFT wrote of an adapter, as far as its size hangs on it."""

    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Any = None


def _saved_lora(adapter: str) -> Lora:
    """Return the settings of an adapter folder, which is trained further at its own rank."""
    said = strict_json.read(Path(adapter) / "adapter_config.json", _Adapter)
    targets = str(said.target_modules)
    parts: tuple[Part, ...] = tuple(part for word, part in _MODULES.items() if word in targets)
    return Lora(r=said.r, alpha=said.lora_alpha, dropout=said.lora_dropout, parts=parts or ("llm",))
