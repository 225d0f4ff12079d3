"""Unsound reasoning is rejected with a reason; conclusions of every kind of question are read."""

from __future__ import annotations

import pytest

from mllm.synthesis.thoughts import problem, targets
from tests.support.synthesis import CARDS, SPECIES, kind_of, sample_of


@pytest.mark.parametrize(
    ("thought", "message"),
    [
        ("<obj:0> is green. So it is <obj:1>.", None),
        ("x: y. 1 <obj:0>: z. 2 <obj:1>: y. So 2.", None),
        ("x: y. 1 <obj:1>: y. 2 <obj:0>: z. So 1.", None),
        ("x: y. 1 <obj:1>: y. 2 <obj:0>: z. So 1 <obj:1>.", None),
        ("x: y. 1 <obj:1>: y. 2 <obj:0>: z. So 2 <obj:1>.", "concludes on another thing"),
        ("So it is <obj:1>.", "a candidate was not looked at"),
        ("<obj:1> fits, so not <obj:0>.", "concludes on another thing"),
        ("1 <obj:0>: z. 2 <obj:1>: y. So 1.", "concludes on another thing"),
        ("1 <obj:0>: z. 2 <obj:1>: y. So 7.", "concludes on another thing"),
        ("<obj:0>, <obj:1>, <obj:2>.", "refers to a thing that is not there"),
        ("<obj:0> no. The correct answer is <obj:1>.", "says that the answer was given"),
        ("I was told that it is not <obj:0> but <obj:1>.", "says that the answer was given"),
        ("By the ground truth, not <obj:0> but <obj:1>.", "says that the answer was given"),
        ("Given its bill, not <obj:0> but <obj:1>.", None),
        ("<obj:0> <answer>no</answer> <obj:1>", "holds answer tags"),
    ],
)
def test_unsound_reasoning_is_refused_by_name(thought: str, message: str | None) -> None:
    sample = sample_of(2, 1)
    assert targets(sample) == (1,)
    assert problem(sample, thought) == message


@pytest.mark.parametrize(
    ("kind", "thought", "message"),
    [
        ("absent", "<obj:0> no, <obj:1> no, <obj:2> no. So none.", None),
        ("absent", "<obj:0> no, <obj:1> no, <obj:2> no. It is not in this image.", None),
        ("absent", "<obj:0> no, <obj:1> no, <obj:2> no. So it is <obj:1>.", "does not conclude that none fits"),
        ("absent", "<obj:0> no, <obj:1> no, <obj:2> no. A fine day.", "does not conclude that none fits"),
        ("absent", "<obj:0> no, <obj:1> no. So none.", "a candidate was not looked at"),
        ("name", "<obj:0> no, <obj:1> no, <obj:2> no. So none.", "concludes that none fits"),
        ("several", "1 <obj:0>: x. 2 <obj:1>: y. 3 <obj:2>: x. So 1, 3.", None),
        ("several", "<obj:0> yes. <obj:1> no. <obj:2> yes. They are <obj:2> and <obj:0>.", None),
        ("several", "<obj:0> yes. <obj:1> no. <obj:2> yes. So it is <obj:0>.", "concludes on another thing"),
        ("several", "1 <obj:0>: x. 2 <obj:1>: y. 3 <obj:2>: x. So 1.", "concludes on another thing"),
    ],
)
def test_conclusions_of_every_kind_are_checked(kind: str, thought: str, message: str | None) -> None:
    sample = sample_of(3, 0) if kind == "name" else kind_of(sample_of(3, 0), kind)
    assert problem(sample, thought) == message


def test_a_thought_that_gives_the_target_a_mark_of_another_is_refused() -> None:
    sample = sample_of(2, 0)
    thought = f"{sample.entity}: {', '.join(SPECIES[1].marks)}. 1 <obj:0>: fits. 2 <obj:1>: not. So 1."
    assert problem(sample, thought) is None
    assert problem(sample, thought, CARDS) == "gives the target a mark that its card does not hold"
