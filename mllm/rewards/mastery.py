"""IoU scaled by how well the model knows the entity, as KARL publishes it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from mllm.errors import ConfigError
from mllm.knowledge.mastery import LEVELS, load_mastery
from mllm.prompting import answers
from mllm.prompting.tasks.ground import best_iou, is_above
from mllm.records import Completion, Sample, Score
from mllm.rewards import SampleReward
from mllm.rewards.iou import asks_for_one


@dataclass(frozen=True)
class Reward(SampleReward):
    """R = min(1, s+_k * u) if u > tau else s-_k, with u = IoU and k the level of the sample's entity; -1..1.

    KARL, arXiv 2503.12797v3, equation 1 and the factors of its table (the code compares with >, the paper writes >=):

        level k                 s+     s-
        completely correct     0.65   -0.6
        mostly correct         0.85   -0.5
        partially correct      1.00   -0.4
        mostly incorrect       1.20   -0.2
        completely incorrect   1.40    0.0

    Without an answer in tags R = 0, as in its code; an answer whose box cannot be parsed has u = 0. Samples without a
    box and of task `ground_all`: None. All answers of a group share k, so GRPO's normalisation cancels most of the
    factors (tests/training/grpo/test_weighted_advantages.py has numbers); `advantage: {mastery: ...}` is not cancelled.

    `file` is a mastery file (eval/mastery.py, or KARL's own). An entity that is not in it is an error, unless `unknown`
    sets its level (KARL's code: `completely incorrect`, without a message).
    """

    low: ClassVar[float] = -1.0
    file: str | None = None
    unknown: str | None = None
    tau: float = 0.65
    plus: tuple[float, ...] = (0.65, 0.85, 1.0, 1.2, 1.4)
    minus: tuple[float, ...] = (-0.6, -0.5, -0.4, -0.2, 0.0)

    def __post_init__(self) -> None:
        for name in ("plus", "minus"):
            factors = getattr(self, name)
            object.__setattr__(self, name, tuple(factors))  # YAML gives a list
            if len(factors) != len(LEVELS):
                raise ConfigError(f"reward 'mastery': {name} needs {len(LEVELS)} numbers, got {len(factors)}")
        if min(self.plus) <= 0 or min(self.minus) < -1 or max(self.minus) > 1:
            raise ConfigError("reward 'mastery': plus must be above 0, minus from -1 to 1")
        if not 0 <= self.tau < 1:
            raise ConfigError(f"reward 'mastery': tau must be from 0 to below 1, got {self.tau!r}")
        if self.unknown not in (None, *LEVELS):
            raise ConfigError(f"reward 'mastery': unknown must be one of {', '.join(LEVELS)}, got {self.unknown!r}")
        if self.file is None and self.unknown is None:
            raise ConfigError("reward 'mastery' needs `file`, a mastery file (make one with eval/mastery.py)")
        if self.file is not None:
            load_mastery(self.file)

    def check(self, samples: Iterable[Sample]) -> None:
        """Raise `RecordError` naming the entities whose mastery is not known, unless `unknown` sets their level."""
        if self.file is not None and self.unknown is None:
            names = (sample.entity for sample in samples if asks_for_one(sample))
            load_mastery(self.file).check(names, "rewards.mastery.unknown")

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; parts: iou, and passed (1 if u > tau)."""
        if not asks_for_one(sample):
            return Score(None)
        u = best_iou(completion.answer, sample)
        parts = {"iou": u, "passed": float(is_above(u, self.tau))}
        if completion.answer.problem in (answers.NO_ANSWER, answers.OPEN):
            return Score(0.0, parts)
        known = None if self.file is None else load_mastery(self.file)
        k = LEVELS.index(str(self.unknown) if known is None else known.level(sample.entity, self.unknown))
        return Score(min(1.0, self.plus[k] * u) if parts["passed"] else self.minus[k], parts)
