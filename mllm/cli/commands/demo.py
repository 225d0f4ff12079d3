"""`fieldmark demo`: the whole pipeline on the pocket world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Where to write.")]


def command(
    out: Out = Path("runs/demo"),
    fast: Annotated[bool, typer.Option("--fast", help="A few steps of everything: does it run?")] = False,
) -> None:
    """Run the whole pipeline on the pocket world, from drawing images to the report."""
    from mllm.cli.experiments.demo import run_demo

    typer.echo(f"report: {run_demo(out, fast=fast, tell=typer.echo)}")
