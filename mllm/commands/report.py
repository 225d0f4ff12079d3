"""`fieldmark report`: benchmark runs side by side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from mllm.commands import Out
from mllm.errors import FieldmarkError


def command(
    runs: Annotated[
        list[str], typer.Option(help="NAME=FOLDER of a benchmark run; repeat for each run, or several after one flag.")
    ],
    more: Annotated[list[str] | None, typer.Argument(help="More NAME=FOLDER runs.")] = None,
    logs: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of a training run, for the learning curves.")
    ] = None,
    captions: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of eval/captions.py, holding truematch.json.")
    ] = None,
    out: Out = Path("report.html"),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    gallery: Annotated[int, typer.Option(help="Samples to show with pictures.")] = 10,
) -> None:
    """Set benchmark runs side by side: one self-contained page, the same as Markdown and json."""
    from mllm import report as pages

    named = _named([*runs, *(more or [])])
    told = _named(captions or [])
    made = pages.build(named, logs=_named(logs or []), captions=told, title=title, gallery=gallery)
    page, text, _ = pages.write(made, out)
    typer.echo(text.read_text(encoding="utf-8"))
    typer.echo(f"written: {page}")


def _named(pairs: Iterable[str]) -> dict[str, str]:
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
