"""`fieldmark table-grounding`: plain GRPO, KARL as published, and mastery on the advantage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Where to write.")]


def command(out: Out = Path("runs/grounding")) -> None:
    """Compare three ways to weigh entities in GRPO, three seeds each. An hour; goes on where it was stopped."""
    from mllm.cli.experiments.mastery_ablation import GroundingTable, Plan

    typer.echo(GroundingTable(out, Plan(), typer.echo).run())
