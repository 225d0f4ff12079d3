"""Compare three ways to weight entities in GRPO, three seeds each; an hour on two cores.

Plain GRPO, KARL as published (factors inside the reward, where group normalisation takes most of them away) and ours
(the same factors on the advantage, after normalisation, refreshed while training), from the same CoT-SFT weights. The
start's learning rate is the one that table-spine chose for the same recipe. The same command continues a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path

from mllm.cli.experiments.ablation import Ablation, AblationRun, Arm, GroundingTask, Sizes

SIZES = Sizes(train=4000, validation=160, test=400, sft_steps=300, rl_steps=40)
START = "CoT-SFT"
PLAIN, KARL, OURS = "GRPO", "KARL as published", "mastery on the advantage"


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/grounding")
    """output folder"""


def command(options: Options) -> None:
    print(AblationRun(options.out, ablation(), print).run())


def ablation(sizes: Sizes = SIZES) -> Ablation:
    """Return the experiment."""
    karl = ("--rewards.iou.weight=0", "--rewards.mastery.file={mastery}")
    ours = (
        "--advantage.mastery.file={mastery}",
        "--advantage.mastery.refresh.by=marks",
        f"--advantage.mastery.refresh.every={sizes.rl_steps // 2}",
        f"--advantage.mastery.refresh.per_entity={sizes.per_entity}",
    )
    start = Arm(START, "sft", "think", sizes.sft_steps, sizes.sft_rates)
    trained = (
        Arm(name, "rl", "think", sizes.rl_steps, sizes.rates, START, (*sizes.batch_flags, *flags))
        for name, flags in ((PLAIN, ()), (KARL, karl), (OURS, ours))
    )
    comparisons = ((START, PLAIN), (PLAIN, KARL), (PLAIN, OURS), (KARL, OURS))
    return Ablation(GroundingTask, sizes, (start, *trained), comparisons)
