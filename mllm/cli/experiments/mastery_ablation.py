"""`fieldmark table-grounding`: does weighing entities by mastery help, and does it where KARL lays its factors?

Plain GRPO, KARL as published (factors inside the reward, where group normalisation takes most of them away) and ours
(the same factors on the advantage, after normalisation, refreshed while training), from the same CoT-SFT weights.

Every trained arm has the same tuning budget, steps, prompts and answers: each learning rate once on the first seed,
chosen by Acc@0.5 on the validation split (checkpoints too). The test split is used once, at the end. Intervals
resample images and seeds. A stopped run resumes; weights, raw answers, mastery files and seeds stay in the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mllm.cli.experiments.pipeline import Stage
from mllm.cli.experiments.sft_vs_grpo import SEEDS, Ablation, Arm

START = "CoT-SFT"
PLAIN, KARL, OURS = "GRPO", "KARL as published", "mastery on the advantage"


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the experiment; the defaults make the table of docs/log.md in about an hour on two busy cores.

    The start is not searched for: its rate is the one that `make table-spine` chose for the same recipe.
    """

    train: int = 4000
    validation: int = 160
    test: int = 400
    sft_steps: int = 300
    rl_steps: int = 40
    prompts_per_step: int = 8
    completions: int = 8
    per_entity: int = 4
    refresh_every: int = 20
    rates: tuple[str, ...] = ("3e-5", "1e-4")
    sft_rates: tuple[str, ...] = ("3e-4",)
    max_new_tokens: int = 256
    seeds: tuple[int, ...] = SEEDS

    def arms(self) -> tuple[Arm, ...]:
        """The arms in an order in which the start comes before those that start from it.

        `{mastery}` in a flag stands for the mastery file of the start with the arm's seed.
        """
        rl = (
            f"--num_generations={self.completions}",
            f"--per_device_train_batch_size={self.prompts_per_step * self.completions}",
        )
        karl = ("--rewards.iou.weight=0", "--rewards.mastery.file={mastery}")
        ours = (
            "--advantage.mastery.file={mastery}",
            "--advantage.mastery.refresh.by=marks",
            f"--advantage.mastery.refresh.every={self.refresh_every}",
            f"--advantage.mastery.refresh.per_entity={self.per_entity}",
        )
        return (
            Arm(START, "sft", "sft", "think", self.sft_steps, self.sft_rates),
            *(
                Arm(name, "rl", "rl", "think", self.rl_steps, self.rates, START, (*rl, *more))
                for name, more in ((PLAIN, ()), (KARL, karl), (OURS, ours))
            ),
        )


class GroundingTable(Ablation):
    """The experiment in one folder."""

    comparisons = ((START, PLAIN), (PLAIN, KARL), (PLAIN, OURS), (KARL, OURS))

    def __init__(self, out: Path, plan: Plan, tell: Callable[[str], None]) -> None:
        super().__init__(out, plan, tell)
        self.plan: Plan = plan
        self.seeds = plan.seeds

    def _before(self, arm: Arm, seed: int) -> list[Stage]:
        """What an arm's training needs first: the mastery of the weights that it starts from."""
        if arm.start is None or not any("{mastery}" in flag for flag in arm.flags):
            return []
        arguments = (
            "--model", str(self._folder(arm.start, seed) / "best"),
            "--samples", str(self.out / "data" / "train.jsonl"),
            "--by", "marks",
            "--per-entity", str(self.plan.per_entity),
            "--out", str(self._mastery(arm.start, seed).parent),
        )  # fmt: skip
        return [Stage(f"mastery of {arm.start}, seed {seed}", "mllm.eval.mastery", arguments, 120)]

    def _flags(self, arm: Arm, seed: int) -> tuple[str, ...]:
        """Put the seed's mastery file where the arm's flags ask for it."""
        if arm.start is None:
            return arm.flags
        return tuple(flag.replace("{mastery}", str(self._mastery(arm.start, seed))) for flag in arm.flags)

    def _mastery(self, arm: str, seed: int) -> Path:
        return self.out / "mastery" / f"{arm.replace(' ', '_')}-seed{seed}" / "mastery.json"
