"""Weights on advantages, laid on after GRPO's group normalisation, so that it cannot take them away again.

Advantages A_N are those of N completions, the G of one prompt in a row; weights have the same shape and multiply them.

Why after: all completions of a group ask for the same entity, so a factor on their rewards is the same affine map for
the whole group, and (r - mean) / std undoes affine maps. A factor on the advantage stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch

from mllm.errors import ConfigError

Difficulty = Literal["univg", "linear", "log"]


def normalised(rewards_N: torch.Tensor, group: int, *, epsilon: float = 1e-4) -> torch.Tensor:
    """Return GRPO's advantages as TRL computes them (`scale_rewards: group`): (r - mean) / (std + epsilon), shape (N,).

    The standard deviation is the unbiased one. For tests and for looking at what weights do.
    """
    rewards_BG = rewards_N.view(-1, group)
    mean_B1, std_B1 = rewards_BG.mean(1, keepdim=True), rewards_BG.std(1, keepdim=True)
    return ((rewards_BG - mean_B1) / (std_B1 + epsilon)).flatten()


def group_means(values_N: torch.Tensor, group: int) -> torch.Tensor:
    """Return for each completion the mean over its group, shape (N,). NaN values are left out; all NaN gives NaN."""
    return torch.nanmean(values_N.view(-1, group), dim=1).repeat_interleave(group)


def difficulty(mean_iou_N: torch.Tensor, form: Difficulty = "univg") -> torch.Tensor:
    """Weigh hard prompts more. `mean_iou_N` is the mean IoU of each completion's group, 0..1; weights are above 0.

    univg:  exp(1 - m), from e at m = 0 to 1 at m = 1 (UniVG-R1, arXiv 2505.14231)
    linear: 1.05 - m    (the other two forms in its code)
    log:    -log(0.02 + m), at least 0

    Where the mean is NaN (no IoU applies, as for absent things) the weight is 1.
    """
    if form not in get_args(Difficulty):
        raise ConfigError(f"advantage.difficulty must be one of {', '.join(get_args(Difficulty))}, got {form!r}")
    if form == "univg":
        weights_N = torch.exp(1 - mean_iou_N)
    elif form == "linear":
        weights_N = 1.05 - mean_iou_N
    else:
        weights_N = -torch.log(mean_iou_N + 0.02)
    return torch.nan_to_num(weights_N, nan=1.0).clamp_min(0)


def entity(
    advantages_N: torch.Tensor,
    levels: Sequence[int | None],
    weights: Sequence[float],
    negative: Sequence[float] | None = None,
) -> torch.Tensor:
    """Weigh each completion by how well the model knows its entity, shape (N,).

    Args:
        advantages_N: the advantages to be weighted; only their signs are looked at, and only with `negative`.
        levels: the level of each completion's entity, an index into `weights` (0: known best); None weighs 1.
        weights: one weight a level.
        negative: weights of completions with a negative advantage, where they shall differ. Then the weighted
            advantages of a group no longer sum to 0: on the whole, well-known entities' answers are pushed down and
            little-known ones' up.
    """
    if len(levels) != len(advantages_N):
        raise ValueError(f"{len(advantages_N)} advantages and {len(levels)} levels")

    def looked_up(table: Sequence[float]) -> torch.Tensor:
        found = [1.0 if level is None else float(table[level]) for level in levels]
        if any(value < 0 or not math.isfinite(value) for value in found):
            raise ConfigError(f"advantage.mastery: weights must be finite and not below 0, got {tuple(table)}")
        return torch.tensor(found, dtype=advantages_N.dtype, device=advantages_N.device)

    above_N = looked_up(weights)
    return above_N if negative is None else torch.where(advantages_N < 0, looked_up(negative), above_N)
