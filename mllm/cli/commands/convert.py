"""`fieldmark convert`: other tools' grounding data to samples, and samples to other tools' data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def command(
    source: Annotated[Path, typer.Argument(help="The file to read.")],
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    read_as: Annotated[str, typer.Option("--from", help="samples, sharegpt, swift or vlm_r1.")] = "samples",
    write_as: Annotated[str, typer.Option("--to", help="samples, sharegpt, swift or vlm_r1.")] = "samples",
    family: Annotated[
        str, typer.Option(help="Whose spelling of boxes sharegpt text is in (KVG and KARL: qwen2_vl).")
    ] = "qwen2_vl",
    style: Annotated[str, typer.Option(help="Prompt style of written rows: think or direct.")] = "think",
    domain: Annotated[
        str | None, typer.Option(help="Domain of imported samples, which other files do not tell.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of imported samples.")] = "train",
) -> None:
    """Convert LLaMA-Factory sharegpt, ms-swift and VLM-R1 files to samples and back; boxes keep their numbers."""
    from mllm.data import formats
    from mllm.io.jsonl import check_unique, write_jsonl
    from mllm.models import families
    from mllm.records import load_samples

    chosen = families.load(family)
    if read_as == "samples":
        samples = load_samples(source)
    else:
        rows = formats.load(read_as).read(source, chosen)
        samples = check_unique(replace(row, split=split, domain=domain or row.domain) for row in rows)
    here = target.parent.resolve()
    moved = [
        replace(sample, image=os.path.relpath((source.parent / sample.image).resolve(), here)) for sample in samples
    ]
    if write_as == "samples":
        count = write_jsonl(target, moved)
    else:
        count = formats.load(write_as).write(target, moved, chosen, style)
    absent = sum(not sample.boxes for sample in samples)
    typer.echo(f"{target}: {count} rows, {absent} of them of things that are not in the image")
