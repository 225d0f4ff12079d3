"""Where the committed weights of the built-in pocket models lie."""

from __future__ import annotations

from pathlib import Path

from mllm.errors import FieldmarkError

WEIGHTS = Path(__file__).parents[1] / "pocket" / "weights"


def weights_folder() -> Path:
    """The committed base model."""
    folder = WEIGHTS / "base"
    if not (folder / "model.safetensors").is_file():
        raise FieldmarkError(
            f"{folder}: the pocket base weights are missing; `python recipes/pretrain.py` makes them (an hour or two)"
        )
    return folder


def clip_folder(which: str) -> Path:
    """The committed weights of the scorer or the judge."""
    folder = WEIGHTS / which
    if not (folder / "model.safetensors").is_file():
        raise FieldmarkError(
            f"{folder}: the pocket {which}'s weights are missing; `python recipes/pretrain_clip.py` makes them"
        )
    return folder


def grammar_folder() -> Path:
    """The committed grammar head."""
    return WEIGHTS / "grammar"
