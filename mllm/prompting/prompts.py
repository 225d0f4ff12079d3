"""The chat that asks a question: its words (`mllm.prompting.tasks`) and the instruction of a prompt style after them.

A style's wording is part of a checkpoint's convention (`mllm.models.families.Convention`): a changed word asks old
weights something that they were not trained on, so it needs a new convention version.
"""

from dataclasses import replace
from typing import Any

from mllm.errors import UnknownNameError
from mllm.models.families import Budget, Family
from mllm.records import REFERENCE, Sample

STYLES = {
    "direct": "Answer in <answer></answer>.",
    "think": "Reason in <think></think>, then answer in <answer></answer>.",
}
"""What follows the question, by style."""
PLAIN = "plain"
"""No style: the question is asked in its own words (of a model without a trained style, or about what it knows)."""


def suffix(style: str) -> str:
    """Return what `style` adds after the question. An unknown style raises `UnknownNameError`."""
    if style not in (PLAIN, *STYLES):
        raise UnknownNameError("prompt style", style, STYLES)
    return STYLES.get(style, "")


def styled(question: str, style: str) -> str:
    """Return a question with the instruction of a style after it."""
    return f"{question} {suffix(style)}".rstrip()


def user_text(question: Sample | str, style: str) -> str:
    """Return the text of the user's turn: a sample is worded by its task, a plain question by the style alone."""
    from mllm.prompting.tasks import task_of  # tasks import the styles

    return styled(question, style) if isinstance(question, str) else task_of(question).user_text(question, style)


def with_boxes(sample: Sample, family: Family, budget: Budget) -> Sample:
    """Return the sample with each `<obj:K>` of a question for a name written as the family's box text."""
    if sample.task not in ("name", "quiz") or not REFERENCE.search(sample.question):
        return sample
    frame = family.frame(sample.size, budget)
    mention = REFERENCE.sub(lambda found: family.mention(sample.things[int(found[1])].box, frame), sample.question)
    return replace(sample, question=mention)


def says(role: str, text: str) -> dict[str, Any]:
    """Return one turn of a conversation, text alone."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def messages(question: Sample | str, style: str, *, system: str | None = None) -> list[dict[str, Any]]:
    """Return the chat up to the model's turn, as transformers' chat templates take it.

    The image comes first, as the Qwen-VL lines were trained; a chat template that wants the words first (the pocket
    model's) sorts the parts itself.
    """
    turn = says("user", user_text(question, style))
    turn["content"].insert(0, {"type": "image"})
    return [says("system", system), turn] if system else [turn]
