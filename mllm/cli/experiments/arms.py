"""The arms of an ablation: ways of training, settings to screen, and sizes."""

from dataclasses import dataclass, replace

SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of training: the recipe's configuration, for how long, the learning rates to try, and from which arm.

    In a flag, `{mastery}` stands for the mastery file of the start's weights with the same seed, and `{out}` for the
    output folder.
    """

    name: str
    config: str
    style: str
    steps: int
    rates: tuple[str, ...]
    start: str | None = None
    flags: tuple[str, ...] = ()
    expected_s: float = 300


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings that a screening tries: flags of the recipe, and their learning rates (none: those of the arm)."""

    name: str
    flags: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()

    def of(self, arm: Arm) -> Arm:
        """Return an arm with these settings."""
        return replace(arm, flags=(*arm.flags, *self.flags), rates=self.rates or arm.rates)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of an ablation: samples of each split, steps, and what one GRPO step reads."""

    train: int
    validation: int
    test: int
    sft_steps: int
    rl_steps: int
    prompts_per_step: int = 8
    completions: int = 8
    max_new_tokens: int = 256
    sft_rates: tuple[str, ...] = ("3e-4",)
    rates: tuple[str, ...] = ("3e-5", "1e-4")
    seeds: tuple[int, ...] = SEEDS
    per_entity: int = 4
    """questions about each entity that mastery is measured with"""

    @property
    def batch_flags(self) -> tuple[str, ...]:
        """The flags of a GRPO step's size."""
        batch = self.prompts_per_step * self.completions
        return f"--num_generations={self.completions}", f"--per_device_train_batch_size={batch}"
