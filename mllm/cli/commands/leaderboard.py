"""`fieldmark leaderboard`: benchmark runs as one table for a README or a paper."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    runs: Annotated[list[str], typer.Argument(help="Benchmark folders, or NAME=FOLDER.")],
    kind: Annotated[str, typer.Option("--format", help="markdown, latex or json.")] = "markdown",
    part: Annotated[str, typer.Option("--slice", help="What to score: all, unseen entities, domain bird, ...")] = "all",
) -> None:
    """Write benchmark RUNS of the same samples as one table, best first, with intervals.

    Folders of eval/captions.py that hold truematch.json make a table of R@1, marks and words.
    """
    from mllm.cli.options import named_folders as named
    from mllm.evaluation.report import leaderboard

    typer.echo(leaderboard.write(named(runs), part, kind))
