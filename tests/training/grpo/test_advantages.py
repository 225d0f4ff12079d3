"""Weights on advantages, by hand; and why KARL's factors belong after the normalisation, by numbers."""

from __future__ import annotations

import math

import pytest
import torch

from mllm import rewards
from mllm.boxes import Box, Frame
from mllm.errors import ConfigError
from mllm.knowledge.mastery import LEVELS
from mllm.models import families
from mllm.prompting import answers
from mllm.records import Completion, Sample
from mllm.training.grpo import advantages

SAMPLE = Sample("a", "ground", "a.png", Frame(100, 100), "bird", "wren", "Find it.", (Box(0, 0, 1, 1),))
PLUS = (0.65, 0.85, 1.0, 1.2, 1.4)


def karl(ious: list[float], level: str) -> torch.Tensor:
    """KARL's rewards, by the reward itself, of four answers with these IoUs with a true box that is the image."""
    family, frame = families.load("qwen2_vl"), Frame(1000, 1000)
    texts = [f"<answer>(0,0),(1000,{round(1000 * u)})</answer>" for u in ious]
    said = [Completion("a", text, answers.parse(text, family, frame)) for text in texts]
    reward = rewards.load("mastery", unknown=level)
    return torch.tensor([score.value for score in reward([SAMPLE] * len(ious), said)])


def test_group_standardisation_cancels_karls_factors_where_one_answer_is_right() -> None:
    """One success in four: the same advantages for the best known and the least known entity, as without factors."""
    ious = [0.9, 0.3, 0.2, 0.1]
    for level in LEVELS:
        assert advantages.normalised(karl(ious, level), 4).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=2e-3)


def test_what_is_left_of_karls_factors() -> None:
    """Two successes: from (.934, .795) at the top levels to a tie at the lowest, where the cap erases the gradation."""
    found = {level: advantages.normalised(karl([0.9, 0.8, 0.3, 0.1], level), 4).tolist() for level in LEVELS}
    assert found[LEVELS[-1]] == pytest.approx([0.866, 0.866, -0.866, -0.866], abs=2e-3)
    for level in LEVELS:
        assert 0.86 < found[level][0] < 0.95 and 0.78 < found[level][1] < 0.87
    all_right = {level: advantages.normalised(karl([0.95, 0.9, 0.8, 0.72], level), 4).tolist() for level in LEVELS}
    assert all_right[LEVELS[-1]] == [0, 0, 0, 0]  # 1.4 * 0.72 is above the cap already: nothing is learned
    for level in LEVELS[:3]:
        assert all_right[level] == pytest.approx([1.05, 0.56, -0.41, -1.19], abs=1e-2)


def test_weights_after_normalisation_are_kept() -> None:
    """Ours: the least known entity's advantages are 1.4 / 0.65 times the best known one's, whatever the group did."""
    for ious in ([0.9, 0.3, 0.2, 0.1], [0.9, 0.8, 0.3, 0.1], [0.95, 0.9, 0.8, 0.72]):
        plain_N = advantages.normalised(torch.tensor(ious), 4)
        weighted = [plain_N * advantages.entity(plain_N, [k] * 4, PLUS) for k in range(5)]
        for k, factor in enumerate(PLUS):
            assert torch.allclose(weighted[k], factor * plain_N)
            assert weighted[k].sum().abs() < 1e-5  # still a group's advantages: they sum to nothing


def test_negative_weights_apply_below_the_mean_only() -> None:
    given_N = torch.tensor([1.5, -0.5, -0.5, 0.0])
    found = advantages.entity(given_N, [0, 0, 4, None], PLUS, negative=(1.4, 1.2, 1.0, 0.85, 0.65))
    assert found.tolist() == pytest.approx([0.65, 1.4, 0.65, 1.0])


def test_difficulty_by_hand() -> None:
    mean_N = torch.tensor([0.0, 0.5, 1.0, torch.nan])
    assert advantages.difficulty(mean_N).tolist() == pytest.approx([math.e, math.exp(0.5), 1.0, 1.0])
    assert advantages.difficulty(mean_N, "linear").tolist() == pytest.approx([1.05, 0.55, 0.05, 1.0])
    found = advantages.difficulty(mean_N, "log").tolist()
    assert found == pytest.approx([-math.log(0.02), -math.log(0.52), 0.0, 1.0])  # -log(1.02) would be below 0


def test_means_are_over_groups_and_leave_nan_out() -> None:
    values_N = torch.tensor([0.0, 1.0, 0.25, torch.nan, torch.nan, torch.nan])
    means = advantages.group_means(values_N, 2)
    assert means[:4].tolist() == [0.5, 0.5, 0.25, 0.25] and means[4:].isnan().all()


def test_normalised_is_what_trl_does() -> None:
    rewards_N = torch.tensor([1.0, 0.0, 0.5, 0.5])
    std = 2**-0.5
    expected = [0.5 / (std + 1e-4), -0.5 / (std + 1e-4), 0.0, 0.0]
    assert advantages.normalised(rewards_N, 2).tolist() == pytest.approx(expected)


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(ConfigError, match="difficulty must be one of univg, linear, log"):
        advantages.difficulty(torch.zeros(2), "exp")
    with pytest.raises(ConfigError, match="weights must be finite and not below 0"):
        advantages.entity(torch.zeros(1), [0], (-1.0, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="2 advantages and 1 levels"):
        advantages.entity(torch.zeros(2), [0], PLUS)
