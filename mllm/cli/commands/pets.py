"""Run the whole chain on real photos of cats and dogs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def _data_folder() -> Path:
    return Path(os.environ.get("FIELDMARK_TEST_DATA", "../shared/data"))


@dataclass(frozen=True)
class Options:
    data: Path = field(default_factory=_data_folder)
    """folder that holds oxford_pets_sample/ and fg_knowledge/ (also set by FIELDMARK_TEST_DATA)"""
    out: Path = Path("runs/pets")
    """output folder"""
    model: str = "pocket"
    """model to start from"""
    fast: bool = False
    """only a few steps of everything, to see that it runs"""


def command(options: Options) -> None:
    from mllm.cli.experiments.pets import run_pets

    print(f"report: {run_pets(options.data, options.out, model=options.model, fast=options.fast, tell=print)}")
