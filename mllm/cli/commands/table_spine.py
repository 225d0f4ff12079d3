"""Make the results table of docs/log.md: SFT against GRPO, every arm, three seeds; hours on two cores.

Does reasoning first, and then GRPO, help on species never trained on? The same command continues a stopped run.
"""

from dataclasses import dataclass
from pathlib import Path

from mllm.cli.experiments.ablation import Ablation, AblationRun, Arm, GroundingTask, Sizes

SIZES = Sizes(train=4000, validation=160, test=600, sft_steps=300, rl_steps=40, sft_rates=("3e-4", "1e-3"))


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/spine")
    """output folder"""


def command(options: Options) -> None:
    print(AblationRun(options.out, ablation(), print).run())


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
