"""`fieldmark report`: benchmark runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm.cli.options import named_folders as named

Out = Annotated[Path, typer.Option(help="Where to write.")]


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
    gallery: Annotated[int, typer.Option(help="Samples to show with images.")] = 10,
) -> None:
    """Set benchmark runs side by side: one self-contained page, the same as Markdown and json."""
    from mllm.evaluation import report as pages

    shown = named([*runs, *(more or [])])
    told = named(captions or [])
    made = pages.build(shown, logs=named(logs or []), captions=told, title=title, gallery=gallery)
    page, text, _ = pages.write(made, out)
    typer.echo(text.read_text(encoding="utf-8"))
    typer.echo(f"written: {page}")
