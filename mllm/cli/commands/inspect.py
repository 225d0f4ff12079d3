"""`fieldmark inspect`: what a samples file or a file of bags holds, or what a benchmark run answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from mllm.errors import FieldmarkError


def command(
    file: Annotated[Path, typer.Argument(help="A samples file (jsonl); with --html also bags or a benchmark folder.")],
    rows: Annotated[int, typer.Option(help="How many rows to show.")] = 3,
    pictures: Annotated[bool, typer.Option(help="Open every image's header and compare its size with the row.")] = True,
    html: Annotated[
        Path | None, typer.Option(help="Write a page of images instead, with filters by domain, outcome and score.")
    ] = None,
    samples: Annotated[Path | None, typer.Option(help="Samples file of the images that bags name.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Entries of that page, evenly spread.")] = 200,
) -> None:
    """Show the first rows of a samples file and check all of them: fields, ids, boxes, images and their sizes."""
    if html is not None:
        from mllm.evaluation.report import gallery

        typer.echo(f"written: {gallery.write(file, html, count=count, samples=samples)}")
        return
    if file.is_dir():
        raise FieldmarkError(f"{file} is a folder: a benchmark's outputs are shown with --html PAGE.html")
    from mllm.io.codec import encode
    from mllm.io.images import check_image_size
    from mllm.records import image_path, load_samples

    rows_read = load_samples(file, images=pictures)
    for sample in rows_read[: max(rows, 0)]:
        typer.echo(json.dumps(json.loads(encode(sample)), indent=2, ensure_ascii=False))
    if pictures:
        for path, size in {(image_path(file, sample), sample.size) for sample in rows_read}:
            check_image_size(path, size)
    typer.echo(f"{file}: {len(rows_read)} samples on {len({sample.image for sample in rows_read})} images, all sound")
    typer.echo("splits: " + _counted(sample.split for sample in rows_read))
    typer.echo("domains: " + _counted(sample.domain for sample in rows_read))
    typer.echo(
        "entities: " + str(len({sample.entity for sample in rows_read})) + ", seen in training: " + _seen(rows_read)
    )
    typer.echo("things in an image: " + _counted(len(sample.things) for sample in rows_read))
    typer.echo(f"with a thought: {sum(sample.thought is not None for sample in rows_read)}")


def _counted(values: Iterable[object]) -> str:
    return ", ".join(
        f"{value} {count}" for value, count in sorted(Counter(values).items(), key=lambda item: str(item[0]))
    )


def _seen(samples: Iterable) -> str:
    names = {True: "yes", False: "no", None: "not known"}
    return _counted(names[sample.seen] for sample in samples)
