"""Make the results table of docs/log.md: SFT against GRPO, every arm, three seeds; hours on two cores.

The same command continues a stopped run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/spine")
    """output folder"""


def command(options: Options) -> None:
    from mllm.cli.experiments.sft_vs_grpo import Ablation, Plan

    print(Ablation(options.out, Plan(), print).run())
