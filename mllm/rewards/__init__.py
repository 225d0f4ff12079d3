"""Rewards: one file, one reward. The file's name is the name in a config; nothing has to be registered.

To add one, write `mllm/rewards/<name>.py` with a frozen dataclass `Reward(BaseReward)`: its fields are its config, its
docstring is its formula, `low` and `high` bound its values, and `__call__` scores completions of samples. The contract
test in tests/rewards picks the file up by itself. A benchmark calls the same object, so that what is trained is what is
measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from mllm.errors import ConfigError
from mllm.models.families import Budget, Family
from mllm.records import Completion, Sample, Score
from mllm.registry import Registry


@dataclass(frozen=True)
class BaseReward(ABC):
    """Scores completions. Instances are plain values: they pickle, compare equal by their fields, and hold no state."""

    low: ClassVar[float] = 0.0
    """Smallest value it can give."""
    high: ClassVar[float] = 1.0
    """Largest value it can give."""
    weight: ClassVar[float] = 1.0
    """Its weight where a config names none; 0 for what is there to be logged, not to be trained on."""
    task: ClassVar[str] = "ground"
    """The task of the samples that it is for; samples that it has nothing to say about get None."""

    @abstractmethod
    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score completion i of sample i. Bad model text is scored low, never raised; None where it does not apply."""

    def reading(self, family: Family, budget: Budget) -> BaseReward:  # noqa: ARG002  (most read answers alone)
        """Return this reward as it reads the thoughts of one family, whose boxes are not taken out of them yet."""
        return self

    def check(self, samples: Iterable[Sample]) -> None:  # noqa: B027  (most rewards can score any sample)
        """Raise `FieldmarkError` for samples that it cannot score; called before anything is trained."""


_FILES = Registry(__name__, "reward", "Reward")
names = _FILES.names


def load(name: str, **config: Any) -> BaseReward:
    """Build the reward of file `name` with the given fields.

    Raises:
        UnknownNameError: no such file; lists the known rewards.
        ConfigError: a field that the reward does not have, or a value that it refuses.
    """
    cls = _FILES.load(name)
    known = [item.name for item in fields(cls)]
    for field in config:
        if field not in known:
            raise ConfigError(f"reward {name!r} has no field {field!r}; it has {', '.join(['weight', *known])}")
    return cls(**config)


def load_all(config: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[BaseReward, float]]:
    """Build the rewards of a config `{name: {weight: 1, **fields}}` and return each with its weight, in order."""
    built = {}
    for name, section in config.items():
        values = dict(section)
        weight = values.pop("weight", None)
        reward = load(name, **values)
        built[name] = reward, reward.weight if weight is None else float(weight)
    return built
