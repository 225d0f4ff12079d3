"""How a model is asked: prompt styles by name, and the text it should write.

One style is one entry of `STYLES`. Its wording is part of a checkpoint's convention (`mllm.models.families.Convention`):
changing a word here asks old weights something they were not trained on, so it comes with a new convention version.
"""

from __future__ import annotations

import re
from typing import Any

from mllm.boxes import Frame
from mllm.captions import wants_caption
from mllm.errors import RecordError, UnknownNameError
from mllm.models.families import Family
from mllm.records import Sample

STYLES = {
    "direct": "Answer in <answer></answer>.",
    "think": "Reason in <think></think>, then answer in <answer></answer>.",
}
"""What follows the question, by style."""

PLAIN = "plain"
"""No style: a question is asked as it stands (of a model that was not trained on any style, or about what it knows)."""

ABSENT = "none"
"""What the answer says where the thing asked for is not in the image (`mllm.prompting.answers` reads other ways to say it)."""
ALL = "ground_all"
"""The task whose answer is every instance of what is asked for; task `ground` asks for one."""
_ENDS_ON_A_THING = re.compile(r"(?:<obj:\d+>|\bSo \d+)\W*$")


def suffix(style: str) -> str:
    """Return what `style` says after the question. An unknown style raises `UnknownNameError`."""
    if style == PLAIN:
        return ""
    if style not in STYLES:
        raise UnknownNameError("prompt style", style, STYLES)
    return STYLES[style]


def user_text(question: Sample | str, style: str) -> str:
    """Return the whole text of the user's turn. A caption is asked for as it stands: it is the answer, in any style."""
    asked = suffix(style)
    if isinstance(question, Sample) and wants_caption(question):
        return question.question
    words = question.question if isinstance(question, Sample) else question
    return f"{words} {asked}".rstrip()


def messages(question: Sample | str, style: str, *, system: str | None = None) -> list[dict[str, Any]]:
    """Return the chat up to the model's turn, as transformers' chat templates take it.

    The image comes first, as the Qwen-VL lines were trained; a chat template that wants the words first (the pocket
    model's) sorts the parts itself.
    """
    parts = [{"type": "image"}, {"type": "text", "text": user_text(question, style)}]
    turns: list[dict[str, Any]] = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    return [*turns, {"role": "user", "content": parts}]


def target(sample: Sample, style: str, family: Family, frame: Frame) -> str:
    """Return what the model should write for a sample: the thought where the style asks for one, then the answer.

    The answer is the sample's first box, all of them for task `ground_all`, and `none` where it has none. The thought
    of a sample without boxes must not end on a thing: it would conclude what the answer denies.

    Where a caption is wanted it is the sample's first caption.

    Raises:
        RecordError: no thought where one is asked for, or one that ends on a thing where none is right; a sample
            without boxes among whose things the entity stands; a caption row without a caption. Names the sample.
    """
    if not suffix(style):
        raise RecordError(f"sample {sample.id}: prompt style {style!r} asks as it stands and has no target")
    if wants_caption(sample):
        if not sample.captions or not sample.captions[0].strip():
            raise RecordError(f"sample {sample.id}: field captions: at least one caption is needed to train on")
        return sample.captions[0].strip()
    if not sample.boxes and any(thing.entity == sample.entity for thing in sample.things):
        raise RecordError(
            f"sample {sample.id}: field boxes: at least one box is needed, since {sample.entity!r} is among its things"
        )
    boxes = sample.boxes if sample.task == ALL else sample.boxes[:1]
    answer = f"<answer>{family.write_boxes(boxes, frame) if boxes else ABSENT}</answer>"
    if style == "direct":
        return answer
    if not sample.thought:
        raise RecordError(
            f"sample {sample.id}: field thought: style {style!r} needs a thought; make the data with a teacher, or "
            f"train with style 'direct'"
        )
    if not boxes and _ENDS_ON_A_THING.search(sample.thought):
        raise RecordError(f"sample {sample.id}: field thought: it ends on a thing, but the sample has no box")
    return f"<think>{family.write_thought(sample.thought, sample.things, frame)}</think>{answer}"
