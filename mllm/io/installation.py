"""Where the program folders are: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def program_folder(name: str) -> Path:
    """Return the folder `recipes`, `data_synth` or `eval`, of the installed package or of the checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
