"""`fieldmark push`: a synthesized set to the Hub, images and data card included."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="What data_synth/grounding.py or data_synth/captions.py wrote.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    private: Annotated[bool, typer.Option(help="Make the repository a private one.")] = False,
    licence: Annotated[str | None, typer.Option(help="The Hub's name of the terms, over what the photos say.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to pack it first [FOLDER-hub].")] = None,
    dry_run: Annotated[bool, typer.Option(help="Pack it and push nothing.")] = False,
) -> None:
    """Push a synthesized set FOLDER to REPOSITORY as parquet, with its data card; `datasets.load_dataset` opens it."""
    from mllm.data import hub

    packed = out or folder.with_name(f"{folder.name}-hub")
    files = hub.pack(folder, packed, licence=licence)
    typer.echo(f"{packed}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    if not dry_run:
        typer.echo(f"pushed: {hub.push(packed, repository, private=private)}")
