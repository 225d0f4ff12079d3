"""The chat that asks a question, and the text that answers it, as `mllm.prompting.tasks` words them."""

from typing import Any

from mllm.prompting.styles import styled
from mllm.prompting.tasks import task_of
from mllm.records import Sample


def user_text(question: Sample | str, style: str) -> str:
    """Return the text of the user's turn: a sample is worded by its task, a plain question by the style alone."""
    return styled(question, style) if isinstance(question, str) else task_of(question).user_text(question, style)


def messages(question: Sample | str, style: str, *, system: str | None = None) -> list[dict[str, Any]]:
    """Return the chat up to the model's turn, as transformers' chat templates take it.

    The image comes first, as the Qwen-VL lines were trained; a chat template that wants the words first (the pocket
    model's) sorts the parts itself.
    """
    parts = [{"type": "image"}, {"type": "text", "text": user_text(question, style)}]
    turns: list[dict[str, Any]] = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    return [*turns, {"role": "user", "content": parts}]
