"""`fieldmark doctor`: what this machine has."""

from __future__ import annotations

import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

import typer


def command() -> None:
    """Say what this machine has: versions, cores, memory, GPUs, disk, and whether the pocket weights are there."""
    from mllm import provenance
    from mllm.pipeline import cpus

    typer.echo(f"{platform.platform()}, {cpus()} cores for us, {_memory()} GB memory")
    for name, version in provenance.versions().items():
        typer.echo(f"  {name:<14} {version}")
    typer.echo(f"  {'torchvision':<14} {'installed' if find_spec('torchvision') else 'not installed (not needed)'}")
    import torch

    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(k)
            typer.echo(
                f"GPU {k}: {card.name}, {card.total_memory / 2**30:.0f} GB, bfloat16 {torch.cuda.is_bf16_supported()}"
            )
    else:
        typer.echo("no CUDA GPU: the pocket example runs on the CPU, larger models need a GPU")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    typer.echo(f"disk: {free:.0f} GB free here")
    from mllm.pocket.model import weights_folder

    typer.echo(f"pocket weights: {weights_folder()}")


def _memory() -> str:
    import os

    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f}"
    except (ValueError, AttributeError):  # not every system tells
        return "?"
