"""The IoU reward: three modes by hand, and the very number that the benchmark reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mllm.boxes import Box, Frame, iou
from mllm.errors import ConfigError
from mllm.prompting.tasks.ground import best_iou
from mllm.records import Answer, Completion, Sample, Score
from mllm.rewards.iou import Reward

GOLD = Box(0.0, 0.0, 0.5, 1.0)
SAMPLE = Sample("a", "ground", "a.png", Frame(100, 100), "bird", "x", "Find x.", (GOLD,))


def output(*boxes: Box) -> Completion:
    problem = None if boxes else "no box in the answer"
    return Completion("a", "", Answer(None, "", boxes, tuple((0.0,) * 4 for _ in boxes), problem))


HALF = Box(0.0, 0.0, 0.25, 1.0)  # IoU 0.5 with GOLD
MOST = Box(0.0, 0.0, 0.4, 1.0)  # IoU 0.8


@pytest.mark.parametrize(
    ("reward", "box", "expected"),
    [
        (Reward(), HALF, 0.5),
        (Reward(), GOLD, 1.0),
        (Reward(), Box(0.5, 0.0, 1.0, 1.0), 0.0),
        (Reward(mode="threshold", tau=0.5), HALF, 0.0),  # strictly above, as in the paper's code
        (Reward(mode="threshold", tau=0.5), MOST, 0.8),
        (Reward(mode="threshold", tau=0.9), MOST, 0.0),
        (Reward(mode="power"), MOST, 0.64),
        (Reward(mode="power", gamma=3.0), MOST, 0.512),
        (Reward(mode="half"), HALF, 0.75),  # the tie passes
        (Reward(mode="half"), MOST, 0.9),
        (Reward(mode="half"), Box(0.0, 0.0, 0.2, 1.0), 0.2),  # IoU 0.4: half of it
        (Reward(mode="hit"), HALF, 1.0),
        (Reward(mode="hit"), Box(0.0, 0.0, 0.2, 1.0), 0.0),
    ],
)
def test_modes(reward: Reward, box: Box, expected: float) -> None:
    (score,) = reward([SAMPLE], [output(box)])
    assert score.value == pytest.approx(expected)
    assert score.parts["iou"] == pytest.approx(iou(box, GOLD))


def test_unread_answers_score_zero_and_are_counted() -> None:
    (score,) = Reward()([SAMPLE], [output()])
    assert score == Score(0.0, {"iou": 0.0, "acc": 0.0, "unread": 1.0})


def test_half_counts_as_right() -> None:
    (score,) = Reward()([SAMPLE], [output(HALF)])
    assert score.parts["acc"] == 1.0


def test_of_several_true_boxes_the_nearest_counts() -> None:
    two = replace(SAMPLE, boxes=(Box(0.5, 0.0, 1.0, 1.0), GOLD))
    assert best_iou(output(MOST).answer, two) == pytest.approx(0.8)


def test_no_true_box_means_it_does_not_apply() -> None:
    assert Reward()([replace(SAMPLE, boxes=())], [output(HALF)]) == [Score(None)]
    assert Reward()([replace(SAMPLE, task="ground_all")], [output(HALF)]) == [Score(None)]


@pytest.mark.parametrize("wrong", [{"mode": "soft"}, {"tau": 1.0}, {"tau": -0.1}, {"gamma": 0}])
def test_settings_without_meaning_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="reward 'iou'"):
        Reward(**wrong)


def test_the_benchmark_gives_the_same_number() -> None:
    """Train on what you measure: reward value, benchmark IoU and Box IoU are one number."""
    from mllm.evaluation import scores
    from mllm.models import families
    from mllm.prompting import answers

    family = families.load("pocket")
    frame = family.frame(SAMPLE.size, family.budget)
    for box in (HALF, MOST, GOLD, Box(0.31, 0.2, 0.77, 0.4)):
        text = f"<answer>{family.write_box(box, frame)}</answer>"
        completion = Completion("a", text, answers.parse(text, family, frame))
        (case,) = scores.judge([SAMPLE], [completion], family, lambda _: frame)
        (score,) = Reward()([SAMPLE], [completion])
        assert completion.answer.box is not None
        assert case.iou == score.value == iou(completion.answer.box, GOLD)
        assert case.hit == bool(score.parts["acc"])
