"""`fieldmark preflight`: prove a recipe without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[Path, typer.Option(help="A recipe's YAML.")],
    flags: Annotated[
        list[str] | None, typer.Argument(help="After `--`: flags of the recipe, for instance -- --num_generations 8.")
    ] = None,
    accelerate: Annotated[
        Path | None, typer.Option(help="Accelerate configuration; default: the one in the recipe's header.")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="GPUs in all; default: what the configuration says.")] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(help="GiB on each GPU; default: 80 with several processes, 24 with one.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows there will be, to tell the time while they are not made yet.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="What could not be checked is a failure, too.")] = False,
) -> None:
    """Prove a recipe without a GPU: model, rows, rewards, batches and memory; say what to change if it does not fit.

    What is not on this machine (data, tokenizer) is said to be NOT CHECKED, with the command that supplies it. The exit
    code is 1 when something is bad, and with --strict when something was not checked.
    """
    import logging

    from mllm.training.preflight.check import check_recipe

    logging.getLogger("mllm").setLevel(logging.WARNING)  # the page says what the run would log
    result = check_recipe(
        config, flags or [], accelerate=accelerate, processes=processes, gpu_memory=gpu_memory, rows=rows
    )
    typer.echo(f"{config} ({result.recipe.kind.upper()}) on {result.hardware}")
    for found in result.findings:
        mark = {"good": "", "not checked": "NOT CHECKED", "bad": "BAD"}[found.state]
        typer.echo(f"\n{found.topic}{': ' + mark if mark else ''}")
        for line in found.lines:
            typer.echo(f"    {line}")
    passed = result.passed(strict=strict)
    unchecked = sum(found.state == "not checked" for found in result.findings)
    typer.echo(f"\n{'ready' if passed else 'NOT READY'}" + (f"; not checked: {unchecked}" if unchecked else ""))
    if not passed:
        raise typer.Exit(1)
