"""Weights on advantages by how well the model knows the entity, applied after GRPO's group normalisation.

A factor on the rewards would be the same for the whole group, and (r - mean) / std would cancel it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mllm.config import MasteryWeight
from mllm.errors import ConfigError
from mllm.knowledge.mastery import LEVELS, MasteryTable, load_mastery
from mllm.records import Sample

Reweight = Callable[[torch.Tensor, Sequence[Sample]], torch.Tensor]
"""The trainer's hook that weighs advantages after the group normalisation: it gets each completion's advantage, summed
over tokens, and sample, and returns a factor for each, shape (N,)."""


@dataclass
class AdvantageWeights:
    """Weights by mastery. `table` is replaced when mastery is estimated again (`MasteryRefresh`)."""

    settings: MasteryWeight
    table: MasteryTable

    @classmethod
    def build(cls, settings: MasteryWeight, samples: Sequence[Sample]) -> AdvantageWeights:
        """Read the mastery file and check that it contains every entity of the samples.

        Raises:
            RecordError: no such file, or entities that are not in it (and `unknown` sets no level for them).
        """
        table = load_mastery(settings.file)
        if settings.unknown is None:
            table.check((sample.entity for sample in samples if sample.boxes), "advantage.mastery.unknown")
        return cls(settings, table)

    def __call__(self, advantages_N: torch.Tensor, samples: Sequence[Sample]) -> torch.Tensor:
        """Return a weight for each completion, shape (N,); see `Reweight`."""
        return entity_weights(advantages_N, self.levels(samples), self.settings.weights, self.settings.negative)

    def levels(self, samples: Sequence[Sample]) -> list[int | None]:
        """Return each sample's level as an index; None (weight 1) for things that are not in the image."""
        unknown = self.settings.unknown
        return [LEVELS.index(self.table.level(s.entity, unknown)) if s.boxes else None for s in samples]


def entity_weights(
    advantages_N: torch.Tensor,
    levels: Sequence[int | None],
    weights: Sequence[float],
    negative: Sequence[float] | None = None,
) -> torch.Tensor:
    """Return a weight for each completion by the level of its entity, shape (N,).

    Args:
        advantages_N: the advantages to be weighted; only their signs matter, and only with `negative`.
        levels: the level of each completion's entity, an index into `weights` (0: known best); None gives weight 1.
        weights: one weight per level.
        negative: weights of completions with a negative advantage; None uses `weights` for them too. With it, a
            group's weighted advantages no longer sum to 0: answers about well-known entities are pushed down on
            average, and those about little-known ones up.

    Raises:
        ConfigError: a weight that is negative or not finite.
        ValueError: another number of levels than of advantages.
    """
    if len(levels) != len(advantages_N):
        raise ValueError(f"{len(advantages_N)} advantages and {len(levels)} levels")

    def lookup(table: Sequence[float]) -> torch.Tensor:
        values = [1.0 if level is None else float(table[level]) for level in levels]
        if any(value < 0 or not math.isfinite(value) for value in values):
            raise ConfigError(f"advantage.mastery: weights must be finite and at least 0, got {tuple(table)}")
        return torch.tensor(values, dtype=advantages_N.dtype, device=advantages_N.device)

    above_N = lookup(weights)
    return above_N if negative is None else torch.where(advantages_N < 0, lookup(negative), above_N)
