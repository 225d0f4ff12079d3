"""`fieldmark table-captions`: self-retrieval, bags that grow and CLIP reward, from sparse and from boosted captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Where to write.")]


def command(
    out: Out = Path("runs/captions"),
    seeds: Annotated[int, typer.Option(min=1, max=9, help="How many seeds; fewer for a first look.")] = 3,
) -> None:
    """Compare ways to train captions, three seeds each. Under an hour on two cores; goes on where it was stopped."""
    from mllm.cli.experiments.caption_ablation import CaptionsTable, Plan

    typer.echo(CaptionsTable(out, Plan(seeds=tuple(range(seeds))), typer.echo).run())
