"""Prompt styles: the instruction that follows a question.

A style's wording is part of a checkpoint's convention (`mllm.models.families.Convention`): a changed word asks old
weights something that they were not trained on, so it needs a new convention version.
"""

from mllm.errors import UnknownNameError

STYLES = {
    "direct": "Answer in <answer></answer>.",
    "think": "Reason in <think></think>, then answer in <answer></answer>.",
}
"""What follows the question, by style."""
PLAIN = "plain"
"""No style: the question is asked in its own words (of a model without a trained style, or about what it knows)."""


def suffix(style: str) -> str:
    """Return what `style` adds after the question. An unknown style raises `UnknownNameError`."""
    if style == PLAIN:
        return ""
    if style not in STYLES:
        raise UnknownNameError("prompt style", style, STYLES)
    return STYLES[style]


def styled(question: str, style: str) -> str:
    """Return a question with the instruction of a style after it."""
    return f"{question} {suffix(style)}".rstrip()
