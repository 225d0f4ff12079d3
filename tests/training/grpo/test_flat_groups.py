"""Groups whose answers all earn the same, whatever float32 makes of their mean."""

from __future__ import annotations

import pytest
import torch

from mllm.training.grpo.flat_groups import flat, flat_rows
from mllm.training.grpo.step_credit import group_advantages

NAN = float("nan")


@pytest.mark.parametrize("size", [2, 3, 4, 8, 16])
def test_equal_rewards_are_flat_whatever_their_mean(size: int) -> None:
    rewards = torch.rand(200, generator=torch.Generator().manual_seed(1)).mul(3).repeat_interleave(size)[:, None]
    assert flat(rewards, size).all()
    rewards[::size] += 1e-3
    assert not flat(rewards, size).any()


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1.7342, 1.7342, 1.7342, 1.7342], True),
        ([0.0, 1.0, 0.5, 0.5], False),
        ([NAN, 0.3, 0.3, NAN], True),
        ([NAN, 0.3, 0.4, NAN], False),
        ([NAN, NAN, NAN, NAN], True),
        ([NAN, NAN, NAN, 0.4], True),
    ],
)
def test_by_hand(rewards: list[float], expected: bool) -> None:
    assert flat(torch.tensor(rewards)[:, None], 4).flatten().tolist() == [expected] * 4


def test_rewards_that_cancel_are_flat_in_the_sum_alone() -> None:
    """A reward of one answer makes up for the other's: the sums are equal, the normalised rewards need not be."""
    rewards, weights = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.2, 0.2], [0.2, 0.2]]), torch.tensor([0.5, 1.0])
    assert flat_rows(rewards, weights, 2, "sum_then_normalize").tolist() == [True] * 4
    assert flat_rows(rewards, weights, 2, "normalize_then_sum").tolist() == [False, False, True, True]


def test_a_reward_without_weight_does_not_count() -> None:
    rewards, weights = torch.tensor([[1.0, 0.0], [1.0, 0.5]]), torch.tensor([1.0, 0.0])
    for aggregation in ("sum_then_normalize", "normalize_then_sum"):
        assert flat_rows(rewards, weights, 2, aggregation).all()


def test_steps_that_earn_the_same_get_no_credit() -> None:
    equal, one_alone = torch.full((8, 1), 1.7342 / 3), torch.tensor([[NAN]] * 7 + [[0.4]])
    assert group_advantages(torch.cat([equal, one_alone], 1), 8).eq(0).all()
