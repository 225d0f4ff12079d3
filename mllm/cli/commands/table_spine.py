"""Make the results table of docs/log.md: SFT against GRPO, every arm, three seeds; hours on two cores.

The same command continues a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/spine")
    """output folder"""


def command(options: Options) -> None:
    from mllm.cli.experiments.ablation import AblationRun
    from mllm.cli.experiments.sft_vs_grpo import ablation

    print(AblationRun(options.out, ablation(), print).run())
