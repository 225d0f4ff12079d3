"""`fieldmark table-spine`: the results table, every arm and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Where to write.")]


def command(out: Out = Path("runs/spine")) -> None:
    """Make the results table of docs/log.md: every arm, three seeds. Hours; goes on where it was stopped."""
    from mllm.cli.experiments.sft_vs_grpo import Plan, Spine

    typer.echo(Spine(out, Plan(), typer.echo).run())
