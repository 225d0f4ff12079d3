"""Compare three ways to weight entities in GRPO, three seeds each; two hours on two cores.

The start knows species unevenly: it was trained on a long tail, from one photo a species to forty, with the thoughts of
a fallible teacher. Plain GRPO, KARL as published (factors inside the reward, where group normalisation takes most of
them away) and ours (the same factors on the advantage, after normalisation, refreshed while training) continue from the
same weights. The start's learning rate is the one that table-spine chose for the same recipe. The same command
continues a stopped run.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mllm.cli.experiments.ablation import Ablation, AblationRun, GroundingTask
from mllm.cli.experiments.arms import Arm, Sizes
from mllm.cli.experiments.pipeline import FALLIBLE, Stage, counts
from mllm.evaluation import runs
from mllm.io.jsonl import read_jsonl
from mllm.records import Sample

SIZES = Sizes(train=4000, validation=160, test=600, sft_steps=320, rl_steps=40)
LONG_TAIL = 40
"""Training photos of the commonest species; the rarest has one."""
START = "CoT-SFT"
PLAIN, KARL, OURS = "GRPO", "KARL as published", "mastery on the advantage"


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/grounding")
    """output folder"""


class LongTailTask(GroundingTask):
    """Grounding after a long-tailed training set; also measures rare and common species of it."""

    columns = (*GroundingTask.columns, "rare species", "common species")

    def data(self) -> list[Stage]:
        """Return the one stage that makes the data."""
        sizes = counts(self.sizes.train, self.sizes.validation, self.sizes.test)
        photos = ("--max-things=4", "--photos-per-entity=72", f"--long-tail={LONG_TAIL}")
        return [
            Stage(
                "data", "mllm.data_synth.grounding", ("--out", str(self.out / "data"), *sizes, *photos, *FALLIBLE), 150
            )
        ]

    def values(self, folder: Path) -> dict[str, list[tuple[float, str]]]:
        """Return the hits of each slice, by image; half of the species in training are rare."""
        asked = Counter(sample.entity for sample in read_jsonl(self.out / "data" / "train.jsonl", Sample))
        cases = [case for case in runs.load(folder).cases if case.sample.entity in asked]
        middle = median(asked.values())
        rare, common = (
            [(float(case.hit), case.sample.group) for case in cases if (asked[case.sample.entity] <= middle) == is_rare]
            for is_rare in (True, False)
        )
        return super().values(folder) | {"rare species": rare, "common species": common}


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
    return Ablation(LongTailTask, sizes, (start, *trained), comparisons)
