"""Compare one reward for the whole answer with credit for each step of the reasoning; three seeds, two hours.

All arms continue from the CoT-SFT of table-spine, with as many samples: GRPO with format and hit alone, with the mean
of the steps added to the reward, and with each step's own advantage on its tokens. In the folder of table-spine, what
that table has trained is not trained again. The same command continues a stopped run.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from mllm.cli.commands import table_spine
from mllm.cli.experiments.ablation import Ablation, AblationRun
from mllm.cli.experiments.arms import Sizes

PLAIN, SUMMED, CREDITED = table_spine.REPAIRED, "GRPO, steps in the reward", "GRPO, steps credited"
WEIGHT = 0.5


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/spine")
    """output folder"""


def command(options: Options) -> None:
    table = AblationRun(options.out, ablation(), print).run("table_credit.md")
    print(table)


def ablation(sizes: Sizes = table_spine.SIZES) -> Ablation:
    """Return the experiment."""
    spine = table_spine.ablation(sizes)
    arms = {arm.name: arm for arm in spine.arms}
    plain = arms[PLAIN]
    summed = replace(plain, name=SUMMED, flags=(*plain.flags, f"--rewards.links.weight={WEIGHT}"))
    credited = replace(plain, name=CREDITED, flags=(*plain.flags, f"--advantage.step_credit={WEIGHT}"))
    comparisons = ((table_spine.UNCHECKED, PLAIN), (PLAIN, SUMMED), (PLAIN, CREDITED), (SUMMED, CREDITED))
    compared = (arms[table_spine.UNCHECKED], plain, summed, credited)
    return replace(spine, arms=compared, comparisons=comparisons)
