"""`fieldmark table-spine`: does reasoning first, and then GRPO, help on species never trained on?

Six arms, three seeds, one table; the defaults make the table of docs/log.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mllm.cli.commands.demo import POCKET_DATA
from mllm.cli.experiments.ablation import Ablation, AblationTask, Arm, Sizes
from mllm.cli.experiments.pipeline import Stage, answers, counts
from mllm.evaluation import runs

SIZES = Sizes(train=4000, validation=160, test=600, sft_steps=300, rl_steps=40, sft_rates=("3e-4", "1e-3"))
SEEN_OF = {"seen entities": (True,), "unseen entities": (False,), "all": (True, False, None)}


class GroundingTask(AblationTask):
    """Boxes of pocket creatures, measured by Acc@0.5 on seen and unseen entities."""

    criterion = "eval/acc"
    columns = tuple(SEEN_OF)

    def data(self) -> list[Stage]:
        """Return the one stage that makes the data."""
        sizes = counts(self.sizes.train, self.sizes.validation, self.sizes.test)
        out = str(self.out / "data")
        return [Stage("data", "mllm.data_synth.grounding", ("--out", out, *sizes, *POCKET_DATA), 60)]

    def measurements(self, models: Sequence[tuple[str, int, str, str]]) -> Iterator[list[Stage]]:
        """Yield the benchmarks of all models."""
        stages = []
        for arm, seed, style, model in models:
            tokens = 32 if style == "direct" else self.sizes.max_new_tokens
            flags = ("--max-new-tokens", tokens, "--batch-size", 48)
            test, out = self.out / "data" / "test.jsonl", self.folder(arm, seed)
            stages.append(answers(f"benchmark of {arm}, seed {seed}", "kvg_bench", model, test, out, flags, 90))
        yield stages

    def values(self, folder: Path) -> dict[str, list[tuple[float, str]]]:
        """Return the hits of each slice, by image."""
        cases = runs.load(folder).cases
        return {
            part: [(float(case.hit), case.sample.group) for case in cases if case.sample.seen in seen]
            for part, seen in SEEN_OF.items()
        }


def ablation(sizes: Sizes = SIZES) -> Ablation:
    """Return the experiment."""
    answered = sizes.rl_steps * sizes.prompts_per_step * sizes.completions
    more = max(1, answered // 16)  # SFT batches of 16: as many samples as GRPO reads answers
    direct = ("--style=direct", "--rewards.format.style=direct", "--max_completion_length=24")
    rl = sizes.batch_flags
    arms = (
        Arm("SFT", "sft_direct", "direct", sizes.sft_steps, sizes.sft_rates),
        Arm("CoT-SFT", "sft", "think", sizes.sft_steps, sizes.sft_rates),
        Arm("CoT-SFT continued", "sft", "think", more, ("1e-4", "3e-4"), "CoT-SFT"),
        Arm("GRPO from SFT", "rl", "direct", sizes.rl_steps, sizes.rates, "SFT", (*rl, *direct)),
        Arm("GRPO from CoT-SFT", "rl", "think", sizes.rl_steps, sizes.rates, "CoT-SFT", rl),
    )
    comparisons = (
        ("SFT", "CoT-SFT"),
        ("CoT-SFT", "GRPO from CoT-SFT"),
        ("CoT-SFT continued", "GRPO from CoT-SFT"),
        ("SFT", "GRPO from SFT"),
    )
    return Ablation(GroundingTask, sizes, arms, comparisons)
