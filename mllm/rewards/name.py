"""Whether the answer names the thing: right and specific, or at least its genus."""

from dataclasses import dataclass
from typing import ClassVar

from mllm.errors import ConfigError
from mllm.prompting.tasks.name import GRADES, PARTLY, grade
from mllm.records import Completion, Sample, Score
from mllm.rewards import SampleReward


@dataclass(frozen=True)
class Reward(SampleReward):
    """R = 1 for the right name, `genus` for its genus alone, else 0; 0..1.

    Correct but less specific earns a part, specific and wrong (a sister of the same genus, too) nothing, so that a
    guess does not pay where the genus is all that can be seen (SpeciaRL, arXiv 2603.03197). Several names earn nothing,
    nor does text that cannot be read. `mllm.prompting.tasks.name.grade` decides, for the benchmark, too. Samples
    of other tasks: None.
    """

    task: ClassVar[str] = "name"
    genus: float = PARTLY

    def __post_init__(self) -> None:
        if not 0 <= self.genus <= 1:
            raise ConfigError(f"reward 'name': genus must be from 0 to 1, got {self.genus!r}")

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion; parts: each grade, 0 or 1."""
        if sample.task != "name":
            return Score(None)
        found = grade(completion.answer, sample)
        value = {"species": 1.0, "genus": self.genus}.get(found, 0.0)
        return Score(value, {name: float(name == found) for name in GRADES})
