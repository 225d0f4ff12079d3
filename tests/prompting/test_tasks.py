"""Every task: its file, its target, and that rewards and benchmark score with the task's own function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import RecordError, UnknownNameError
from mllm.models import families
from mllm.prompting import tasks
from mllm.prompting.tasks import BaseTask, CompletionReader, asked_boxes, score_of, task_of
from mllm.records import Sample, TaskName, Thing
from mllm.rewards import iou, matched

POCKET, SIZE = families.load("pocket"), Frame(288, 192)
LEFT, RIGHT = Box(0.1, 0.2, 0.4, 0.6), Box(0.5, 0.2, 0.9, 0.8)
SAMPLE = Sample(
    "s", "ground", "a.png", SIZE, "bird", "Talo ruvi", "Find it.", (LEFT,),
    things=(Thing("Talo ruvi", LEFT), Thing("Talo mer", RIGHT)), thought="1 <obj:0>: red. 2 <obj:1>: blue. So 1.",
    captions=("a red bird",), options=("a", "b", "c", "d"),
)  # fmt: skip
READER = CompletionReader(POCKET, POCKET.budget)
each_task = pytest.mark.parametrize("name", tasks.names())


def frame() -> Frame:
    return POCKET.frame(SIZE, POCKET.budget)


def test_a_file_is_a_task_and_its_name_a_type(root: Path) -> None:
    files = {file.stem for file in (root / "mllm" / "prompting" / "tasks").glob("*.py")} - {"__init__"}
    assert set(tasks.names()) == files == set(get_args(TaskName))
    with pytest.raises(UnknownNameError, match="unknown task 'grond'.*Did you mean 'ground'"):
        tasks.load("grond")


@each_task
def test_the_contract(name: str) -> None:
    task = tasks.load(name)
    assert isinstance(task, BaseTask) and type(task).__doc__ and task is tasks.load(name)
    sample = replace(SAMPLE, task=name)
    assert sample.question in task.user_text(sample, "think")
    with pytest.raises(UnknownNameError, match="prompt style"):
        task.user_text(sample, "thinks")
    with pytest.raises(RecordError, match="sample s: prompt style 'plain'"):
        task.target(sample, "plain", POCKET, frame())


@pytest.mark.parametrize("name", ["ground", "ground_all"])
@pytest.mark.parametrize("style", ["direct", "think"])
@pytest.mark.parametrize("boxes", [(LEFT,), (LEFT, RIGHT), ()])
def test_the_target_is_right_by_every_judge(name: str, style: str, boxes: tuple[Box, ...]) -> None:
    things = tuple(Thing("Talo ruvi" if box in boxes else "Talo mer", box) for box in (LEFT, RIGHT))
    thought = "1 <obj:0>: red. 2 <obj:1>: blue. None fits." if not boxes else SAMPLE.thought
    sample = replace(SAMPLE, task=name, boxes=boxes, things=things, thought=thought)
    done = READER.read(sample, task_of(sample).target(sample, style, POCKET, frame()))
    assert len(done.answer.boxes) == len(asked_boxes(sample))
    assert task_of(sample).is_right(done.answer, sample) and score_of(sample, done.answer) > 0.8
    reward = {"ground": iou.Reward(), "ground_all": matched.Reward()}[name]
    (score,) = reward([sample], [done])
    assert score.value == (score_of(sample, done.answer) if boxes else None)
    wrong = READER.read(sample, "<answer>(0,0),(1,1)</answer>")
    assert not task_of(sample).is_right(wrong.answer, sample) and score_of(sample, wrong.answer) < 0.5


def test_misses_and_extra_boxes_of_several_cost_alike() -> None:
    sample = replace(SAMPLE, task="ground_all", boxes=(LEFT, RIGHT))
    one = READER.read(sample, f"<answer>{POCKET.write_boxes((LEFT,), frame())}</answer>")
    assert score_of(sample, one.answer) == pytest.approx(0.5) and not task_of(sample).is_right(one.answer, sample)


def test_captions_are_read_as_they_stand_and_not_scored_alone() -> None:
    sample = replace(SAMPLE, task="caption")
    reader = CompletionReader(POCKET, POCKET.budget, opening="<think>")
    assert (
        reader.read(sample, "a red bird").text == "a red bird" == task_of(sample).target(sample, "think", POCKET, SIZE)
    )
    assert reader.read(replace(sample, task="ground"), "a red bird").text == "<think>a red bird"
    with pytest.raises(RecordError, match="not scored one by one"):
        score_of(sample, reader.read(sample, "a red bird").answer)
    with pytest.raises(RecordError, match="field captions"):
        task_of(sample).check(replace(sample, captions=()), "direct")
    task_of(sample).check(replace(sample, captions=()), "direct", target=False)


def test_a_quiz_is_not_trained_on() -> None:
    with pytest.raises(RecordError, match="field task: samples of task 'quiz' are not trained on"):
        task_of(replace(SAMPLE, task="quiz")).check(replace(SAMPLE, task="quiz"), "direct")
