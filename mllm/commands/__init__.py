"""Commands of `fieldmark`: one file, one command. The file's name is the command's (`table_spine.py` is `table-spine`).

To add one, write `mllm/commands/<name>.py` with a function `command` in typer's manner; its docstring is its help.
Heavy libraries are imported inside the function, so that help comes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Where to write.")]


def names() -> tuple[str, ...]:
    """Return the modules of this folder, sorted."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def load(name: str) -> Callable[..., None]:
    """Return the function of command `name`."""
    return import_module(f"{__name__}.{name}").command
