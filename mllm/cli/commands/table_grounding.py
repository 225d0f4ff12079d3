"""Compare three ways to weight entities in GRPO, three seeds each; an hour on two cores.

Plain GRPO, KARL as published, and mastery on the advantage. The same command continues a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/grounding")
    """output folder"""


def command(options: Options) -> None:
    from mllm.cli.experiments.ablation import AblationRun
    from mllm.cli.experiments.mastery_ablation import ablation

    print(AblationRun(options.out, ablation(), print).run())
