"""Targets and prompts: what a model should write is read as what it says, for every family and style."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mllm.boxes import Box, Frame, iou
from mllm.errors import FieldmarkError, RecordError, UnknownNameError
from mllm.models import families
from mllm.prompting import prompts
from mllm.prompting.answers import parse, write_thought
from mllm.prompting.tasks import task_of
from mllm.records import Sample, Thing
from tests.prompting.test_answers import BOX, FAMILIES, HUNDRED, POCKET, QWEN2, QWEN3, SAMPLE, THOUSAND


@pytest.mark.parametrize("style", prompts.STYLES)
@pytest.mark.parametrize("family", [POCKET, QWEN2, QWEN3], ids=lambda family: family.name)
def test_the_target_is_read_as_what_it_says(style: str, family: families.Family) -> None:
    frame = family.frame(SAMPLE.size, family.budget)
    text = task_of(SAMPLE).target(SAMPLE, style, family, frame)
    for whole in (text, f"{prompts.user_text(SAMPLE, style)}\n{text}"):  # some models repeat the prompt first
        answer = parse(whole, family, frame)
        assert answer.problem is None and answer.box == BOX
        assert answer.thought == (write_thought(SAMPLE, family, frame) if style == "think" else None)


def test_the_wording_of_prompts_and_targets() -> None:
    assert prompts.user_text(SAMPLE, "direct") == "Find the bird Talo ruvi. Answer in <answer></answer>."
    assert prompts.user_text("Where?", "think") == "Where? Reason in <think></think>, then answer in <answer></answer>."
    assert task_of(SAMPLE).target(SAMPLE, "direct", POCKET, HUNDRED) == "<answer>(12,34),(56,78)</answer>"
    assert task_of(SAMPLE).target(SAMPLE, "think", POCKET, HUNDRED) == (
        "<think>Talo ruvi: round. 1 (12,34),(56,78): round. 2 (0,0),(10,10): wide. So 1.</think>"
        "<answer>(12,34),(56,78)</answer>"
    )
    assert "1 [120, 340, 560, 780]: round" in task_of(SAMPLE).target(SAMPLE, "think", QWEN3, THOUSAND)
    (user,) = prompts.messages(SAMPLE, "direct")
    assert user["role"] == "user"
    assert [part["type"] for part in user["content"]] == ["image", "text"]
    assert prompts.messages("Where?", "direct", system="Be brief.")[0]["role"] == "system"


def test_targets_that_cannot_be_written() -> None:
    bare = Sample("7", "ground", "7.png", Frame(9, 9), "bird", "x", "Find x.", (), (Thing("x", BOX),))
    with pytest.raises(RecordError, match="sample 7: field boxes: at least one box .* 'x' is among its things"):
        task_of(bare).target(bare, "direct", POCKET, HUNDRED)
    with_box = Sample("7", "ground", "7.png", Frame(9, 9), "bird", "x", "Find x.", (BOX,))
    with pytest.raises(RecordError, match="sample 7: field thought"):
        task_of(with_box).target(with_box, "think", POCKET, HUNDRED)
    assert write_thought(with_box, POCKET, HUNDRED) is None
    with pytest.raises(UnknownNameError, match="Did you mean 'think'"):
        prompts.user_text(SAMPLE, "thinks")
    with pytest.raises(FieldmarkError, match="pocket writes boxes on 100 x 100"):
        task_of(SAMPLE).target(SAMPLE, "direct", POCKET, THOUSAND)


@pytest.mark.parametrize("style", prompts.STYLES)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_box_of_a_set_is_written_and_read_back(style: str, family: families.Family) -> None:
    boxes = (BOX, Box(0, 0, 0.1, 0.1), Box(0.5, 0.25, 1, 1))
    frame = family.frame(SAMPLE.size, family.budget)
    for several in (boxes, boxes[:1]):
        asked = replace(SAMPLE, task="ground_all", boxes=several)
        answer = parse(task_of(asked).target(asked, style, family, frame), family, frame)
        assert answer.problem is None and len(answer.boxes) == len(several)
        for read, meant in zip(answer.boxes, several, strict=True):
            assert iou(read, meant) > 0.9
    one = parse(task_of(SAMPLE).target(replace(SAMPLE, boxes=boxes), style, family, frame), family, frame)
    assert len(one.boxes) == 1  # task `ground` asks for one: the first


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_target_of_an_absent_thing(family: families.Family) -> None:
    frame = family.frame(SAMPLE.size, family.budget)
    thought = "Talo ruvi: round. 1 <obj:0>: wide, not. So none."
    absent = replace(SAMPLE, boxes=(), things=SAMPLE.things[1:], thought=thought)
    assert task_of(absent).target(absent, "direct", family, frame) == "<answer>none</answer>"
    answer = parse(task_of(absent).target(absent, "think", family, frame), family, frame)
    assert answer.absent and answer.thought is not None and answer.thought.endswith("So none.")
    for ending in ("So 1.", "It is <obj:0>."):
        with pytest.raises(RecordError, match="sample 1: field thought: it ends on a thing"):
            task_of(absent).target(
                replace(absent, thought=f"Talo ruvi: round. 1 <obj:0>: wide. {ending}"), "think", family, frame
            )
