"""Folders of the committed weights of the built-in pocket models."""

from __future__ import annotations

from pathlib import Path

from mllm.errors import FieldmarkError

WEIGHTS = Path(__file__).parents[1] / "pocket" / "weights"


def weights_folder() -> Path:
    """Return the folder of the base model."""
    return _checked("base", "python recipes/pretrain.py")


def clip_folder(which: str) -> Path:
    """Return the folder of the encoder `scorer` or `judge`."""
    return _checked(which, "python recipes/pretrain_clip.py")


def grammar_folder() -> Path:
    """Return the folder of the grammar head."""
    return WEIGHTS / "grammar"


def _checked(name: str, command: str) -> Path:
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise FieldmarkError(f"{folder}: the pocket {name} weights are missing; `{command}` makes them")
    return folder
