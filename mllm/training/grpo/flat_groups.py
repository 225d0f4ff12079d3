"""Groups whose answers all earn the same: one criterion for advantages, dynamic sampling, step credit and logs.

A float32 mean of equal rewards is not always that reward, and a tiny difference over a tiny deviation looks like an
advantage. So flat groups are found from the rewards themselves.
"""

import torch

SPREAD = 1e-6
"""Largest difference between the rewards of a flat group."""


def flat(rewards_NK: torch.Tensor, group: int) -> torch.Tensor:
    """Return which of each row's rewards are equal in its whole group of `group` rows, shape (N, K).

    NaN is a row without that reward. A group that has it in no row, or in one alone, is flat.
    """
    grouped_PGK = rewards_NK.view(-1, group, rewards_NK.shape[1])
    missing_PGK = grouped_PGK.isnan()
    highest_PK = grouped_PGK.masked_fill(missing_PGK, -torch.inf).amax(1)
    lowest_PK = grouped_PGK.masked_fill(missing_PGK, torch.inf).amin(1)
    return (highest_PK - lowest_PK <= SPREAD).repeat_interleave(group, dim=0)


def flat_rows(rewards_NK: torch.Tensor, weights_K: torch.Tensor, group: int, aggregation: str) -> torch.Tensor:
    """Return which rows belong to flat groups, shape (N,).

    Args:
        rewards_NK: rewards of all processes, as TRL gathers them; NaN where a reward does not apply.
        weights_K: the rewards' weights.
        group: rows per prompt.
        aggregation: TRL's `multi_objective_aggregation`. Where rewards are normalised before they are summed, equal
            sums can still teach; a group is flat if each of its rewards is.
    """
    weighted_NK = rewards_NK * weights_K.to(rewards_NK.device)
    if aggregation == "normalize_then_sum":
        return flat(weighted_NK, group).all(1)
    total_N1 = weighted_NK.nansum(1, keepdim=True)
    return flat(total_N1.masked_fill(rewards_NK.isnan().all(1, keepdim=True), torch.nan), group)[:, 0]
