"""How a model is asked: prompt styles by name, and the text it should write.

One style is one entry of `STYLES`. Its wording is part of a checkpoint's convention (`mllm.families.Convention`):
changing a word here asks old weights something they were not trained on, so it comes with a new convention version.
"""

from __future__ import annotations

from typing import Any

from mllm.boxes import Frame
from mllm.captions import wants_caption
from mllm.errors import RecordError, UnknownNameError
from mllm.families import Family
from mllm.records import Sample

STYLES = {
    "direct": "Answer in <answer></answer>.",
    "think": "Reason in <think></think>, then answer in <answer></answer>.",
}
"""What follows the question, by style."""


def suffix(style: str) -> str:
    """Return what `style` says after the question. An unknown style raises `UnknownNameError`."""
    if style not in STYLES:
        raise UnknownNameError("prompt style", style, STYLES)
    return STYLES[style]


def user_text(question: Sample | str, style: str) -> str:
    """Return the whole text of the user's turn. A caption is asked for as it stands: it is the answer, in any style."""
    asked = suffix(style)
    if isinstance(question, Sample):
        return question.question if wants_caption(question) else f"{question.question} {asked}"
    return f"{question} {asked}"


def messages(question: Sample | str, style: str, *, system: str | None = None) -> list[dict[str, Any]]:
    """Return the chat up to the model's turn, as transformers' chat templates take it.

    The picture comes first, as the Qwen-VL lines were trained; a chat template that wants the words first (the pocket
    model's) sorts the parts itself.
    """
    parts = [{"type": "image"}, {"type": "text", "text": user_text(question, style)}]
    turns: list[dict[str, Any]] = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    return [*turns, {"role": "user", "content": parts}]


def target(sample: Sample, style: str, family: Family, frame: Frame) -> str:
    """Return what the model should write for a sample: the thought where the style asks for one, then its first box.

    Where a caption is wanted it is the sample's first caption.

    Raises:
        RecordError: the sample has no box (or caption), or no thought where one is asked for. Names the sample.
    """
    suffix(style)
    if wants_caption(sample):
        if not sample.captions or not sample.captions[0].strip():
            raise RecordError(f"sample {sample.id}: field captions: at least one caption is needed to train on")
        return sample.captions[0].strip()
    if not sample.boxes:
        raise RecordError(f"sample {sample.id}: field boxes: at least one box is needed to train on")
    answer = f"<answer>{family.write_box(sample.boxes[0], frame)}</answer>"
    if style == "direct":
        return answer
    if not sample.thought:
        raise RecordError(
            f"sample {sample.id}: field thought: style {style!r} needs a thought; make the data with a teacher, or "
            f"train with style 'direct'"
        )
    return f"<think>{family.write_thought(sample.thought, sample.things, frame)}</think>{answer}"
