"""`fieldmark compare`: several runs on one page, each against the first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm.cli.options import named_folders as named
from mllm.errors import FieldmarkError

Out = Annotated[Path, typer.Option(help="Where to write.")]


def command(
    runs: Annotated[
        list[str], typer.Argument(help="Folders of a benchmark's outputs, of captions or of trainings, or NAME=FOLDER.")
    ],
    logs: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of the training of a run, under the run's own name.")
    ] = None,
    out: Out = Path("compare.html"),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    gallery: Annotated[int, typer.Option(min=0, help="Images to show that one run gets right, another wrong.")] = 24,
) -> None:
    """Set RUNS against the first: scores, paired differences, curves, domains, and images on which they disagree."""
    from mllm.evaluation import report as pages
    from mllm.evaluation.report import caption_bags

    shown = named(runs)
    if len(shown) < 2:
        raise FieldmarkError("a comparison needs two runs: fieldmark compare SFT=runs/pocket/eval/sft RL=...")
    trained = {name: folder for name, folder in shown.items() if _is_training(Path(folder))}
    told = {name: folder for name, folder in shown.items() if caption_bags.has_scores(folder)}
    measured = {name: folder for name, folder in shown.items() if name not in trained and name not in told}
    made = pages.build(
        measured,
        logs=trained | named(logs or []),
        captions=told,
        title=title or f"{', '.join(list(shown)[1:])} against {next(iter(shown))}",
        gallery=gallery,
        against_first=True,
    )
    page, text, _ = pages.write(made, out)
    typer.echo(text.read_text(encoding="utf-8"))
    typer.echo(f"written: {page}")


def _is_training(folder: Path) -> bool:
    """Whether a folder was left by a training: it has a journal and no answers."""
    return (folder / "log.jsonl").is_file() and not (folder / "outputs.jsonl").is_file()
