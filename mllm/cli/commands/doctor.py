"""`fieldmark doctor`: what this machine has and can train, and whether a benchmark leaked into training data."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated

import typer


def command(
    train: Annotated[
        list[Path] | None, typer.Option(help="Samples file that is trained on; with --benchmark: look for leaks.")
    ] = None,
    benchmark: Annotated[list[Path] | None, typer.Option(help="Samples file of the benchmark.")] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="Say what a card of so many GiB could train, without having one.")
    ] = None,
    cards: Annotated[int, typer.Option(min=1, help="How many such cards, with --gpu-memory.")] = 1,
) -> None:
    """Say what this machine has: versions, cores, memory, GPUs, disk, what it can train; find benchmark images among
    training images."""
    from mllm.errors import ConfigError

    if bool(train) != bool(benchmark):
        raise ConfigError("give both --train and --benchmark: the images of the one are looked for in the other")
    if train and benchmark:
        _contamination(train, benchmark)
        return
    _versions()
    _machine(gpu_memory, cards)


def _contamination(train: list[Path], benchmark: list[Path]) -> None:
    from mllm.data import contamination

    found = contamination.check(train, benchmark)
    typer.echo(found.summary())
    if found.pairs:
        raise typer.Exit(1)


def _versions() -> None:
    from importlib.util import find_spec

    from mllm.io import provenance
    from mllm.training.preflight import doctor

    for name, version in provenance.versions().items():
        typer.echo(f"  {name:<14} {version}")
    for name in ("deepspeed", "bitsandbytes", "vllm"):
        typer.echo(f"  {name:<14} {doctor.installed(name) or 'not installed'}")
    typer.echo(f"  {'torchvision':<14} {'installed' if find_spec('torchvision') else 'not installed (not needed)'}")
    wrong = doctor.unmet_requirements()
    for line in [*wrong, *doctor.known_conflicts()]:
        typer.echo(f"  ! {line}")
    if not wrong:
        typer.echo("  all versions are within their ranges")


def _machine(gpu_memory: float | None, cards: int) -> None:
    import torch

    from mllm.cli.experiments.pipeline import cpus
    from mllm.models.builtin import weights_folder
    from mllm.training.preflight import doctor

    told = doctor.memory()
    amount = f"{told[0]:.0f} GB memory, {told[1]:.0f} GB of it free" if told else "memory unknown"
    typer.echo(f"{platform.platform()}, {cpus()} cores for us, {amount}")
    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(k)
            bf16 = torch.cuda.is_bf16_supported()
            typer.echo(f"GPU {k}: {card.name}, {card.total_memory / doctor.GIB:.0f} GB, bfloat16 {bf16}")
        if gpu_memory is None:
            gpu_memory, cards = (
                torch.cuda.get_device_properties(0).total_memory / doctor.GIB,
                torch.cuda.device_count(),
            )
    else:
        typer.echo("no CUDA GPU: the pocket example runs on the CPU, larger models need a GPU")
    free = doctor.free_disk(Path.cwd())
    scarce = f"; checkpoints of large models want {doctor.MIN_FREE_DISK:.0f}" if free < doctor.MIN_FREE_DISK else ""
    typer.echo(f"disk: {free:.0f} GB free here{scarce}")
    typer.echo(f"pocket weights: {weights_folder()}")
    if gpu_memory is not None:
        _recipes(gpu_memory, cards)


def _recipes(gpu_memory: float, cards: int) -> None:
    """List the recipes that fit a machine, by the estimates of `fieldmark preflight`."""
    from mllm.errors import FieldmarkError
    from mllm.io.files import program_folder
    from mllm.training.preflight import doctor

    typer.echo(f"recipes on {cards} x {gpu_memory:.0f} GB, estimated (rows as long as they may be):")
    pocket = ("sft.yaml", "sft_direct.yaml", "rl.yaml")
    for file in sorted(program_folder("recipes").glob("*.yaml")):
        if file.name in pocket or file.name.startswith("pocket"):
            continue
        try:
            needs, fits = doctor.peak_memory(file, gpu_memory, cards)
        except FieldmarkError as error:
            typer.echo(f"  {file.name:<44} not worked out: {str(error)[:90]}")
            continue
        typer.echo(f"  {file.name:<44} {needs:>6.1f} GB a card  {'fits' if fits else 'does not fit'}")
