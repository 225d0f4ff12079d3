"""How programs and commands end: what a person can put right is one line on stderr, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mllm.errors import FieldmarkError

Out = Annotated[Path, typer.Option(help="Where to write.")]


def run_program(command: Callable[..., None], argv: list[str] | None = None) -> None:
    """Run one typer function as a program of its own; what a person can put right is one line, and exit code 2."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    try:
        app(args=argv)
    except SystemExit as end:
        if end.code:
            raise
    except FieldmarkError as error:
        Console(stderr=True).print("error:", str(error), highlight=False, soft_wrap=True, markup=False)
        raise SystemExit(2) from None


def named(pairs: Iterable[str]) -> dict[str, str]:
    """Read NAME=FOLDER pairs; a bare folder is named after itself."""
    named: dict[str, str] = {}
    for pair in pairs:
        name, found, folder = pair.partition("=")
        name, folder = (name, folder) if found else (Path(pair).name, pair)
        if not name or not folder:
            raise FieldmarkError(f"{pair!r}: NAME=FOLDER is needed, for instance SFT=runs/pocket/eval/sft")
        if name in named:
            raise FieldmarkError(f"two folders are called {name!r}: give them different names")
        named[name] = folder
    return named


def run_main(main: Callable[[], None]) -> None:
    """Run a benchmark's `main`; what a person can put right is one line on stderr, after the program's name."""
    try:
        main()
    except FieldmarkError as error:
        raise SystemExit(f"{Path(sys.argv[0]).stem}: {error}") from None
