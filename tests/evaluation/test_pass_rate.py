"""What counts as a right attempt, and what is written beside a sample."""

from __future__ import annotations

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import pass_rate
from mllm.models import families
from mllm.prompting import answers
from mllm.prompting.tasks import task_of
from mllm.records import Answer, Completion, Sample

A, B = Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 1, 1)


def sample(*boxes: Box, task: str = "ground") -> Sample:
    return Sample("s", task, "a", Frame(100, 100), "bird", "wren", "?", boxes)


def completion(*boxes: Box, text: str = "", problem: str | None = None) -> Completion:
    numbers = tuple((box.x1, box.y1, box.x2, box.y2) for box in boxes)
    return Completion("s", text, Answer(None, text, boxes, numbers, problem))


def is_right(sample: Sample, done: Completion) -> bool:
    return task_of(sample).is_right(done.answer, sample)


def test_one_box_at_half() -> None:
    assert is_right(sample(A), completion(A))
    assert is_right(sample(A), completion(Box(0, 0, 0.5, 0.25)))  # IoU 0.5 exactly
    assert not is_right(sample(A), completion(Box(0, 0, 0.5, 0.24)))
    assert not is_right(sample(A), completion(A, problem="box outside the frame"))
    assert not is_right(sample(A), completion())


def test_all_of_several_one_to_one() -> None:
    both = sample(A, B, task="ground_all")
    assert is_right(both, completion(B, A))
    assert not is_right(both, completion(A)) and not is_right(both, completion(A, A))
    assert not is_right(both, completion(A, B, Box(0, 0.5, 0.4, 0.9)))


def test_none_where_there_is_none() -> None:
    family = families.load("pocket")
    for text, right in (
        ("<answer>none</answer>", True),
        ("<think>no</think><answer> None. </answer>", True),
        ("<answer>(1,2),(3,4)</answer>", False),
        ("<answer></answer>", False),
        ("none", False),
    ):
        answer = answers.parse(text, family, Frame(100, 100))
        assert is_right(sample(), Completion("s", text, answer)) is right, text


def test_the_pass_rate_stands_in_the_provenance() -> None:
    graded = pass_rate.graded(sample(A), 1, 3, {"model": "m"})
    assert graded.provenance["difficulty"] == {"passes": 1, "attempts": 3, "rate": 0.3333, "model": "m"}


@pytest.mark.parametrize("bounds", [(4, 3, 2), (4, 0, 5), (4, -1, 2)])
def test_bounds_without_meaning_are_refused(bounds: tuple[int, int, int]) -> None:
    with pytest.raises(FieldmarkError, match="--least"):
        pass_rate.check_bounds(*bounds)
