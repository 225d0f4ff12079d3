"""What teachers answer about marks becomes a verdict."""

from __future__ import annotations

from mllm.knowledge.card_files import Mark
from mllm.synthesis import card_making


def test_a_tie_is_not_most_and_no_answer_is_no_verdict() -> None:
    assert card_making.verified(Mark("x"), [True, False]) == Mark("x", verified=False, seen=1, looked=2)
    assert card_making.verified(Mark("x"), [True, None]) == Mark("x", verified=True, seen=1, looked=1)
    assert card_making.verified(Mark("x", verified=True), [None]) == card_making.verified(Mark("x"), []) == Mark("x")
