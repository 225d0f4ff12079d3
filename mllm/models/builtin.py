"""Folders of the committed weights of the built-in pocket models."""

from pathlib import Path

from mllm.errors import FieldmarkError

WEIGHTS = Path(__file__).parents[1] / "pocket" / "weights"


def weights_folder(name: str = "base") -> Path:
    """Return the folder of the base model, or of the encoder `scorer` or `judge`. Raises FieldmarkError without it."""
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        command = f"python recipes/{'pretrain' if name == 'base' else 'pretrain_clip'}.py"
        raise FieldmarkError(f"{folder}: the pocket {name} weights are missing; `{command}` makes them")
    return folder
