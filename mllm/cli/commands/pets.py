"""`fieldmark pets`: the whole chain on real photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Where to write.")]


def command(
    data: Annotated[
        Path,
        typer.Option(envvar="FIELDMARK_TEST_DATA", help="Folder that holds oxford_pets_sample/ and fg_knowledge/."),
    ] = Path("../shared/data"),
    out: Out = Path("runs/pets"),
    model: Annotated[str, typer.Option(help="What to start from.")] = "pocket",
    fast: Annotated[bool, typer.Option("--fast", help="A few steps of everything: does it run?")] = False,
) -> None:
    """Run the whole chain on real photos of cats and dogs."""
    from mllm.cli.experiments.pets import run_pets

    typer.echo(f"report: {run_pets(data, out, model=model, fast=fast, tell=typer.echo)}")
