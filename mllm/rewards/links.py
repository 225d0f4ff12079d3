"""How many steps of the reasoning are right: a process reward for samples whose things have known marks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mllm.errors import ConfigError
from mllm.metrics.reasoning import STEPS, judge_steps
from mllm.models import families
from mllm.models.families import Budget, Family
from mllm.prompting import answers
from mllm.prompting.tasks import task_of
from mllm.records import Answer, Completion, Sample, Score
from mllm.rewards import SampleReward
from mllm.rewards.iou import asks_for_one


@dataclass(frozen=True)
class Reward(SampleReward):
    """R = mean over the steps in `of` of the share that is right, 0..1 (ours).

    The steps are those of `mllm.metrics.reasoning`, for thoughts in the form of the pocket oracle. A step counts unless
    the sample's own thought omits it; a completion that omits it earns 0 there. Samples whose things' marks are not all
    known, and those that do not ask for one thing: None.

    `family`, `min_pixels` and `max_pixels`, the notation of boxes in thoughts, are those of the trained checkpoint
    (`reading`) and need not be set.
    """

    of: tuple[str, ...] = ("recall", "found", "mark seen", "mark judged", "chosen", "copied")
    family: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", tuple(self.of))
        if not self.of:
            raise ConfigError("reward 'links': of is empty; name at least one step")
        for name in self.of:
            if name not in STEPS:
                raise ConfigError(f"reward 'links': of: unknown step {name!r}; known: {', '.join(STEPS)}")

    def reading(self, family: Family, budget: Budget) -> Reward:
        """Return this reward for a checkpoint's notation."""
        return replace(self, family=family.name, min_pixels=budget.min_pixels, max_pixels=budget.max_pixels)

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; parts: the share of each step that counts."""
        shares = self._shares(sample, completion.answer) if asks_for_one(sample) else None
        if shares is None:
            return Score(None)
        own = self._shares(sample, self._own(sample)) if sample.thought else None
        counted = [name for name in self.of if own is None or name in own]
        if not counted:
            return Score(None)
        parts = {name: shares.get(name, 0.0) for name in counted}
        return Score(sum(parts.values()) / len(parts), parts)

    def _shares(self, sample: Sample, answer: Answer) -> dict[str, float] | None:
        """Return the share of each step that applies; None if the things' marks are unknown."""
        family, budget = self._convention()
        steps = judge_steps(sample, answer, family, family.frame(sample.size, budget))
        return None if steps is None else {name: right / of for name, (right, of) in steps.items()}

    def _own(self, sample: Sample) -> Answer:
        family, budget = self._convention()
        frame = family.frame(sample.size, budget)
        return answers.parse(task_of(sample).target(sample, "think", family, frame), family, frame)

    def _convention(self) -> tuple[Family, Budget]:
        if self.family is None:
            raise ConfigError("reward 'links' parses boxes in thoughts: set its family, for example `family: pocket`")
        family = families.load(self.family)
        if self.min_pixels is None or self.max_pixels is None:
            return family, family.budget
        return family, Budget(self.min_pixels, self.max_pixels)
