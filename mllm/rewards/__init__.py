"""Rewards, one per file. The file's name is the name in a config; nothing has to be registered.

To add one, write `mllm/rewards/<name>.py` with a frozen dataclass `Reward(SampleReward)`: its fields are its config,
its docstring is its formula, `low` and `high` bound its values, and `score` scores a completion. A reward for captions
derives from `CaptionReward` and defines `score_captions`. The contract test in tests/rewards finds the file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from mllm.captions import caption_of
from mllm.errors import ConfigError
from mllm.models.families import Budget, Family
from mllm.records import Completion, Sample, Score
from mllm.registry import Registry


@dataclass(frozen=True)
class BaseReward(ABC):
    """Scores completions. Instances are plain values: they pickle, compare by their fields, and hold no state."""

    low: ClassVar[float] = 0.0
    """Smallest possible value."""
    high: ClassVar[float] = 1.0
    """Largest possible value."""
    weight: ClassVar[float] = 1.0
    """Weight if a config sets none; 0 for a reward that is logged, not trained on."""
    task: ClassVar[str] = "ground"
    """Task of the samples that it is for; samples it does not apply to get None."""

    def __post_init__(self) -> None:
        """Refuse a value that is not one of its field's `Literal` type."""
        for field, hint in get_type_hints(type(self)).items():
            known = get_args(hint)
            if get_origin(hint) is Literal and (value := getattr(self, field)) not in known:
                name = type(self).__module__.rpartition(".")[2]
                raise ConfigError(f"reward {name!r}: {field} must be one of {', '.join(known)}, got {value!r}")

    @abstractmethod
    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score completion i of sample i. Malformed text gets a low score, never an error; None: does not apply."""

    def reading(self, family: Family, budget: Budget) -> BaseReward:  # noqa: ARG002  (most look at answers alone)
        """Return this reward for the notation of one family, in which boxes stand in thoughts."""
        return self

    def check(self, samples: Iterable[Sample]) -> None:  # noqa: B027  (most rewards can score any sample)
        """Raise `FieldmarkError` for samples that it cannot score; called before training starts."""


class SampleReward(BaseReward):
    """A reward that scores each completion by itself."""

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each completion."""
        return [self.score(sample, completion) for sample, completion in zip(samples, completions, strict=True)]

    @abstractmethod
    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion of a sample."""


class CaptionReward(BaseReward):
    """A reward that scores the captions of a batch together; completions of other tasks get None."""

    task: ClassVar[str] = "caption"

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Score each caption."""
        pairs = list(zip(samples, completions, strict=True))
        asked = [(sample, caption_of(done)) for sample, done in pairs if sample.task == "caption"]
        scores = iter(self.score_captions([sample for sample, _ in asked], [caption for _, caption in asked]))
        return [next(scores) if sample.task == "caption" else Score(None) for sample in samples]

    @abstractmethod
    def score_captions(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[Score]:
        """Score the caption of each sample. Called for empty batches too, because it may be a collective call."""


_FILES = Registry(__name__, "reward", "Reward")
names = _FILES.names


def load(name: str, **config: Any) -> BaseReward:
    """Build the reward in file `name` with the given fields.

    Raises:
        UnknownNameError: no such file; lists the known rewards.
        ConfigError: an unknown field, or a value that the reward refuses.
    """
    cls = _FILES.load(name)
    known = [item.name for item in fields(cls)]
    for field in config:
        if field not in known:
            raise ConfigError(f"reward {name!r} has no field {field!r}; it has {', '.join(['weight', *known])}")
    return cls(**config)


def load_all(config: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[BaseReward, float]]:
    """Build the rewards of a config `{name: {weight: 1, **fields}}`; return each with its weight, in order."""
    built = {}
    for name, section in config.items():
        values = dict(section)
        weight = values.pop("weight", None)
        reward = load(name, **values)
        built[name] = reward, reward.weight if weight is None else float(weight)
    return built
