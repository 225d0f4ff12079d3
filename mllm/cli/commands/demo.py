"""Run the whole pipeline on the pocket world, from drawing images to the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/demo")
    """output folder"""
    fast: bool = False
    """only a few steps of everything, to see that it runs"""


def command(options: Options) -> None:
    from mllm.cli.experiments.demo import run_demo

    print(f"report: {run_demo(options.out, fast=options.fast, tell=print)}")
