"""Gold answers scored by the rewards, in every family's notation; rewards that no answer can satisfy are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mllm import rewards
from mllm.boxes import Box
from mllm.models import checkpoint, families
from mllm.models.checkpoint import Checkpoint
from mllm.models.families import Convention
from mllm.prompting.tasks.ground import best_iou
from mllm.records import Completion, Sample, Score, load_samples
from mllm.rewards import BaseReward
from mllm.training.preflight import gold_rewards
from tests.support.scenes import make_captions, make_scene


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("gold")
    return [make_scene(folder, number, "train") for number in range(4)]


def bare(family: str, style: str = "think") -> Checkpoint:
    line = families.load(family)
    return Checkpoint("x", None, line, Convention(family, style, line.budget), None)


@pytest.mark.parametrize("style", ["think", "direct"])
@pytest.mark.parametrize("family", families.names())
def test_gold_answers_earn_full_marks(samples: list[Sample], family: str, style: str) -> None:
    chosen = rewards.load_all({"format": {"style": style}, "iou": {"mode": "threshold", "tau": 0.65}})
    form, iou = gold_rewards.score(samples, chosen, bare(family, style))
    assert (form.low, form.short, form.applies) == (1.0, 0, 4)
    assert iou.short == 0 and iou.low > 0.9


def test_through_the_tokenizer_as_the_trainer_reads_it(samples: list[Sample], pocket_folder: Path) -> None:
    opened = checkpoint.open_checkpoint(pocket_folder, style="think")
    text = gold_rewards.answer(samples[0], opened)
    assert text.startswith("<think>") and text.endswith("</answer>")
    assert all(
        one.short == 0 for one in gold_rewards.score(samples, rewards.load_all({"format": {}, "iou": {}}), opened)
    )


def test_a_thing_that_is_absent_has_no_box_to_compare_with(samples: list[Sample]) -> None:
    absent = replace(samples[0], entity="Talo mer", boxes=(), thought="1 <obj:0>: red, not. So none.")
    form, presence = gold_rewards.score([absent], rewards.load_all({"format": {}, "presence": {}}), bare("qwen3_vl"))
    assert (form.low, presence.low, form.short, presence.short) == (1.0, 1.0, 0, 0)


def test_another_rows_answer_earns_what_it_is_worth(samples: list[Sample]) -> None:
    """Full form, and of the box the overlap of the two: 300 of 900 + 600 square hundredths, or none."""
    boxes = [Box(0.1, 0.1, 0.4, 0.4), Box(0.1, 0.3, 0.4, 0.5), Box(0.6, 0.6, 0.9, 0.9)]
    rows = [replace(sample, boxes=(box,)) for sample, box in zip(samples, boxes, strict=False)]
    form, iou = gold_rewards.score(rows, rewards.load_all({"format": {}, "iou": {}}), bare("qwen3_vl"))
    assert form.swapped == 1.0 and iou.swapped == pytest.approx((300 / 1200 + 0 + 0) / 3)
    (alone,) = gold_rewards.score(rows[:1], rewards.load_all({"iou": {}}), bare("qwen3_vl"))
    assert alone.swapped is None


def test_special_tokens_do_not_reach_the_reward(samples: list[Sample]) -> None:
    assert "<|box_start|>" not in gold_rewards.answer(samples[0], bare("qwen2_vl"))
    assert "),(" in gold_rewards.answer(samples[0], bare("qwen2_vl"))


def test_rewards_that_right_answers_do_not_satisfy_are_found(samples: list[Sample]) -> None:
    """A threshold above what rounding to hundredths leaves, and a form that the prompt does not ask for."""
    (tight,) = gold_rewards.score(
        samples, rewards.load_all({"iou": {"mode": "threshold", "tau": 0.9999}}), bare("pocket")
    )
    assert tight.short > 0 and tight.worst
    (form,) = gold_rewards.score(samples, rewards.load_all({"format": {"style": "think"}}), bare("pocket", "direct"))
    assert (form.high, form.short) == (0.5, 4)


@dataclass(frozen=True)
class Halved(BaseReward):
    """Like KARL's reward for what is known well: the true box earns half."""

    def __call__(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        return [Score(best_iou(c.answer, s) / 2) for s, c in zip(samples, completions, strict=True)]


def test_a_reward_may_give_a_row_less_than_its_maximum(samples: list[Sample]) -> None:
    (half,) = gold_rewards.score(samples, {"halved": (Halved(), 1.0)}, bare("qwen3_vl"))
    assert half.short == 0 and half.high <= 0.5 and half.possible == 1.0


def test_rows_without_a_thought_get_a_placeholder(samples: list[Sample]) -> None:
    silent = [replace(sample, thought=None) for sample in samples]
    (form,) = gold_rewards.score(silent, rewards.load_all({"format": {}}), bare("qwen3_vl"))
    assert (form.low, form.short) == (1.0, 0)


def test_captions_are_scored_as_they_are(tmp_path: Path) -> None:
    """No caption earns all of a retrieval reward, and none is short for that; a missing encoder is reported."""
    file = make_captions(tmp_path, "train", families=2, size=3)
    rows = [replace(sample, image=str(tmp_path / sample.image)) for sample in load_samples(file)]
    chosen = rewards.load_all({"self_retrieval": {}, "faithful": {}, "clip": {"scorer": "./nowhere"}, "format": {}})
    retrieval, faithful, clip, form = gold_rewards.score(rows, chosen, bare("pocket"))
    assert retrieval.applies == 6 and -10 < retrieval.low < retrieval.high < 0 and retrieval.short == 0
    assert (faithful.low, faithful.short, faithful.applies) == (1.0, 0, 6)
    assert "nowhere" in clip.missing and not clip.applies
    assert not form.applies and not form.missing
    lied = [replace(row, captions=("A thing without any mark.",)) for row in rows]
    (score,) = gold_rewards.score(lied, rewards.load_all({"faithful": {}}), bare("pocket"))
    assert score.short == 6
