"""`fieldmark table-grounding`: does weighting entities by mastery help, and does it help where KARL puts its factors?

Plain GRPO, KARL as published (factors inside the reward, where group normalisation takes most of them away) and ours
(the same factors on the advantage, after normalisation, refreshed while training), from the same CoT-SFT weights. The
start's learning rate is not searched for: it is the one that `fieldmark table-spine` chose for the same recipe.
"""

from __future__ import annotations

from mllm.cli.experiments.ablation import Ablation, Arm, Sizes
from mllm.cli.experiments.sft_vs_grpo import GroundingTask

SIZES = Sizes(train=4000, validation=160, test=400, sft_steps=300, rl_steps=40)
START = "CoT-SFT"
PLAIN, KARL, OURS = "GRPO", "KARL as published", "mastery on the advantage"


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
