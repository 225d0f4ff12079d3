"""A fallible teacher of the pocket world: it jumps to conclusions, misreads some marks and compares wrongly at times.

Teachers of real projects are like this: their thoughts are kept because the final box is right, however they got there
(DeepPerception, arXiv 2503.12797, section 3.2). Reinforcement learning then has something to repair.
"""

import random

from pydantic import Field

from mllm.config import Section
from mllm.metrics.reasoning import VERDICTS
from mllm.pocket.pretraining_tasks import judged
from mllm.pocket.species import find
from mllm.records import Sample
from mllm.synthesis.capabilities import ReasoningRequest
from mllm.synthesis.teachers import pocket

MISREAD = {"purple": "blue", "orange": "red", "banded": "striped", "scalloped": "round"}
"""The blind spots: what each of these marks is taken for."""
_WORD = {fits: word for word, fits in VERDICTS.items()}


class Config(Section):
    """How often the teacher errs; each value is a probability, 0..1."""

    hasty: float = Field(default=0.5, ge=0, le=1)
    """a thought recalls and concludes without a look at the candidates"""
    blind: float = Field(default=0.65, ge=0, le=1)
    """a mark of `MISREAD` is misread"""
    wrong: float = Field(default=0.05, ge=0, le=1)
    """a verdict on a mark is the opposite of what the teacher sees"""


class Teacher:
    """Writes thoughts in the oracle's form. Its errors depend on the request alone."""

    TRUTH = "pocket"
    """The teacher of validation and test data."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def reason(self, request: ReasoningRequest) -> str:
        """Write a thought, which may conclude on the wrong thing unless it is hasty. Raises as the oracle does."""
        sample = request.sample
        shown = ", ".join(f"{thing.entity} {thing.box}" for thing in sample.things)
        rng = random.Random(f"{request.seed}/{sample.id}/{sample.entity}/{shown}")
        if sample.task == "name":
            seen = [self._read(mark, rng) for mark in find(sample.entity).marks]
            return pocket.name_thought(request, seen, hasty=rng.random() < self.config.hasty)
        order, chosen = pocket.order_of(sample), pocket.chosen(sample)
        recalled = pocket.recalled(sample)
        if rng.random() < self.config.hasty:
            return pocket.write(sample, recalled, [], order, chosen)
        looks = [self._look(sample, index, recalled, rng) for index in order]
        fits = [sum(verdicts) for _, verdicts in looks]
        if sample.task == "ground" and sample.boxes:
            concluded = [1 + fits.index(max(fits))]
        else:
            concluded = [number for number, (_, verdicts) in enumerate(looks, 1) if all(verdicts)]
        return pocket.write(sample, recalled, [text for text, _ in looks], order, concluded)

    def _look(
        self, sample: Sample, index: int, recalled: tuple[str, ...], rng: random.Random
    ) -> tuple[str, list[bool]]:
        """Read a thing's marks and compare them; return the text and the verdicts on the marks sought."""
        seen = [self._read(mark, rng) for mark in find(sample.things[index].entity).marks]
        words = judged(seen, recalled).rpartition(", ")[0].split(", ")
        verdicts: list[bool] = []
        for place, word in enumerate(words):
            mark, _, verdict = word.rpartition(" ")
            if verdict not in VERDICTS:
                continue  # a kind of mark that was not asked for
            right = VERDICTS[verdict] != (rng.random() < self.config.wrong)
            verdicts.append(right)
            words[place] = f"{mark} {_WORD[right]}"
        return f"{', '.join(words)}, {_WORD[all(verdicts)]}", verdicts

    def _read(self, mark: str, rng: random.Random) -> str:
        first, *rest = mark.split()
        if first in MISREAD and rng.random() < self.config.blind:
            first = MISREAD[first]
        return " ".join((first, *rest))
