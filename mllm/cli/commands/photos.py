"""`fieldmark photos`: labelled photos looked at, all faults at once, before data is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    input: Annotated[Path, typer.Argument(help="Folder or file that the source reads.")],  # noqa: A002
    source: Annotated[str, typer.Option(help="Its form: image_folder, csv, coco, ...")] = "image_folder",
    domain: Annotated[str | None, typer.Option(help="Domain of all photos: bird, car, ...")] = None,
    knowledge: Annotated[list[Path] | None, typer.Option(help="Cards (may be repeated): every kind needs one.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    unseen_share: Annotated[float, typer.Option(help="Share of kinds held out.")] = 0.25,
    clip_boxes: Annotated[bool, typer.Option(help="Boxes that leave their image will be cut.")] = False,
    whole_image_boxes: Annotated[bool, typer.Option(help="Photos without a box are filled by their thing.")] = False,
    boxes_later: Annotated[bool, typer.Option(help="A teacher will point where boxes are missing.")] = False,
    most: Annotated[int, typer.Option(min=1, help="So many faults are listed.")] = 50,
) -> None:
    """Look at every labelled photo of INPUT: what is wrong with which, what looks the same, who may be seen where.

    The exit code is 1 when a photo cannot be used, or a side is left without images. data_synth/grounding.py takes
    the same options.
    """
    from mllm.data import label_checks
    from mllm.data.sources import PhotoRequest
    from mllm.data.splits import Shares
    from mllm.knowledge.cards import load_cards

    request = PhotoRequest(
        input, domain, clip_boxes=clip_boxes, whole_image_boxes=whole_image_boxes, boxes_later=boxes_later
    )
    known = load_cards(*knowledge) if knowledge else None
    found = label_checks.check(source, request, known, Shares(unseen=unseen_share), seed)
    for line in label_checks.summary(found):
        typer.echo(line)
    if found.faults:
        typer.echo(f"cannot be used: {len(found.faults)}")
        for fault in found.faults[:most]:
            typer.echo(f"  {fault}")
        if len(found.faults) > most:
            typer.echo(f"  and {len(found.faults) - most} more (--most)")
    short = list(label_checks.sides_without_images(found))
    for line in short:
        typer.echo(line)
    if found.faults or short:
        raise typer.Exit(1)
    typer.echo("every photo can be used")
