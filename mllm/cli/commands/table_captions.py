"""Compare ways to train captions, three seeds each; under an hour on two cores.

Self-retrieval, growing bags and CLIP reward, from sparse and from boosted captions. The same command continues a
stopped run.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from mllm.cli.programs import Range


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/captions")
    """output folder"""
    seeds: Annotated[int, Range(1, 9)] = 3
    """number of seeds; fewer for a first look"""


def command(options: Options) -> None:
    from mllm.cli.experiments.ablation import AblationRun
    from mllm.cli.experiments.caption_ablation import SIZES, ablation

    print(AblationRun(options.out, ablation(replace(SIZES, seeds=tuple(range(options.seeds)))), print).run())
