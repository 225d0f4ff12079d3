"""Where the program folders lie: in a checkout, or nested in the installed package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def program_folder(name: str) -> Path:
    """Return the folder of the programs `recipes`, `data_synth` or `eval`: the repository's, or the installed one."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
