"""Credit for steps: spans and advantages by hand, and in a real GRPO step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mllm.config import Settings
from mllm.metrics.reasoning import spans
from mllm.pocket.tokenizer import build_tokenizer
from mllm.records import Score
from mllm.training.dataset import Row
from mllm.training.grpo.step_credit import SPANS, StepCredit, group_advantages, span_rewards, token_spans
from tests.training.grpo.test_trainer import generated, rows, trainer  # noqa: F401  (rows is a fixture)

ANSWER = (
    "<think>Talo ruvi: round, red, striped, blue cap. 1 (1,2),(30,40): round fits, red not, not. "
    "2 (5,6),(70,80): round fits, red fits, fits. So 2 (5,6),(70,80).</think><answer>(5,6),(70,80)</answer>"
)


def test_an_answer_is_cut_into_its_steps() -> None:
    parts = {name: ANSWER[start:end] for name, start, end in spans(ANSWER)}
    assert list(parts) == list(SPANS) and "".join(parts.values()) == ANSWER
    assert parts["recall"].endswith("blue cap.")
    assert parts["candidates"].startswith(" 1 (1,2)") and parts["candidates"].endswith("fits.")
    assert parts["choice"] == " So 2 (5,6),(70,80)." and parts["answer"].startswith("</think>")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("<think>Talo ruvi: red. So 2 (1,2),(3,4).</think><answer>x</answer>", ["recall", "choice", "answer"]),
        ("<think>Talo ruvi: red. 1 (1,2),(3,4): red", ["recall", "candidates"]),
        ("<answer>(1,2),(3,4)</answer>", ["recall"]),
        ("", []),
    ],
)
def test_missing_steps_are_left_out(text: str, names: list[str]) -> None:
    assert [name for name, *_ in spans(text)] == names


def test_every_token_belongs_to_the_step_that_it_is_written_in() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(f"{ANSWER}<|im_end|>").input_ids
    places = token_spans(ids, tokenizer)
    assert places == sorted(places) and set(places) == {0, 1, 2, 3}
    written = [
        "".join(str(tokenizer.decode([i])) for i, p in zip(ids, places, strict=True) if p == k) for k in range(4)
    ]
    assert written[2] == " So 2 (5,6),(70,80)." and written[1].startswith(" 1 (1,2)")


def test_steps_are_compared_within_their_group() -> None:
    rewards_NS = torch.tensor([[1.0, 0.5], [0.0, 0.5], [0.4, float("nan")], [0.4, 1.0]])
    found = group_advantages(rewards_NS, 2)
    assert found[:2].tolist() == [[pytest.approx(1.0, abs=1e-3), 0.0], [pytest.approx(-1.0, abs=1e-3), 0.0]]
    assert found[2:].tolist() == [[0.0, 0.0], [0.0, 0.0]], "equal rewards, and a step that one answer lacks"
    assert span_rewards({"recall": 1.0, "found": 0.5, "mark seen": 1.0, "copied": 0.0})[:2] == [1.0, 0.75]


class _One:
    """A single process."""

    process_index = 0

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def test_only_the_tokens_of_a_step_get_its_credit() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(ANSWER).input_ids
    output = {
        "completion_ids": torch.tensor([[*ids, 0], [*ids, 0]]),
        "completion_mask": torch.tensor([[1] * len(ids) + [0]] * 2),
        "advantages": torch.tensor([0.5, -0.5]),
    }
    credit = StepCredit(2.0, tokenizer)
    parts = {"recall": 1.0, "mark seen": 1.0, "chosen": 1.0, "copied": 1.0}
    credit.add("iou", [], [], [Score(1.0)])
    credit.add("links", [], [], [Score(1.0, parts), Score(0.75, parts | {"mark seen": 0.0})])
    found = credit(output, _One(), 2)
    places = torch.tensor([*token_spans(ids, tokenizer), -1])
    assert torch.allclose(found[0], torch.where(places == 1, 0.5 + 2.0, 0.5), atol=1e-3)
    assert torch.allclose(found[1], torch.where(places == 1, -0.5 - 2.0, -0.5), atol=1e-3)


def test_a_step_of_training_uses_it(rows: list[Row], pocket_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    def credit(output: dict[str, Any], accelerator: Any, group: int) -> torch.Tensor:  # noqa: ARG001
        assert group == 4
        return output["advantages"][:, None] + torch.ones_like(output["completion_ids"]).float()

    plain = generated(trainer(rows, pocket_folder, tmp_path))
    made = trainer(rows, pocket_folder, tmp_path, credit=credit)
    batch = generated(made)
    assert torch.equal(batch["advantages"], plain["advantages"][:, None].expand_as(batch["completion_ids"]) + 1)
    assert made._metrics["train"]["advantage/steps"] == [1.0]
    assert torch.isfinite(made._compute_loss(made.model, batch))


def test_the_setting_needs_the_reward_that_it_credits() -> None:
    with pytest.raises(ValueError, match="add `links: {weight: 0}` to rewards"):
        Settings.model_validate({"rewards": {"iou": {}}, "advantage": {"step_credit": 1.0}})
