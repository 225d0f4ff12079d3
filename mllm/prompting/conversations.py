"""A sample as the turns of a conversation, and how many tokens they take.

Nothing here reads weights or decodes an image, so that rows that do not fit are refused in seconds.
"""

from collections.abc import Sequence
from functools import partial
from os.path import commonprefix
from typing import Any

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.models.checkpoint import Checkpoint, Loaded
from mllm.models.families import Convention
from mllm.prompting import prompts
from mllm.prompting.tasks import task_of
from mllm.records import Sample


def conversation(sample: Sample, convention: Convention, style: str | None = None) -> list[dict[str, Any]]:
    """Return the messages that ask a sample: the convention's system prompt, if any, then question and image.

    `style` replaces the convention's prompt style.
    """
    asked = prompts.with_boxes(sample, families.load(convention.family), convention.budget)
    return prompts.messages(asked, style or convention.prompt, system=convention.system)


def target(sample: Sample, convention: Convention) -> str:
    """Return the text that answers a sample, in the convention's prompt style, by its family's way to write boxes."""
    family = families.load(convention.family)
    return task_of(sample).target(sample, convention.prompt, family, family.frame(sample.size, convention.budget))


def count_tokens(
    rows: Sequence[tuple[list[dict[str, Any]], Frame | None]], checkpoint: Checkpoint | Loaded, *, answers: bool = True
) -> list[int]:
    """Count the tokens of conversations, each with the size of its image (None: it has none), decoding no image.

    `answers` says that they end with the model's own turn; without it the opening of that turn is counted. Prompt and
    answer are tokenized apart, as the trainer does: a template may end the one and begin the other with line ends.
    """
    render = partial(checkpoint.processor.apply_chat_template, tokenize=False)
    texts: list[str] = []
    for messages, _ in rows:
        prompt = render(messages[:-1] if answers else messages, add_generation_prompt=True)
        whole = render(messages) if answers else prompt
        texts += [whole[: (end := len(commonprefix([prompt, whole])))], whole[end:]]
    ids = checkpoint.processor.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    counts = [len(prompt) + len(answer) for prompt, answer in zip(ids[::2], ids[1::2], strict=True)]
    budget = checkpoint.convention.budget
    # - 1: the placeholder of the image, which its own tokens replace
    seen = [checkpoint.family.visual_tokens(size, budget) - 1 if size else 0 for _, size in rows]
    return [text + image for text, image in zip(counts, seen, strict=True)]


def lengths(samples: Sequence[Sample], checkpoint: Checkpoint | Loaded, *, answers: bool = True) -> list[int]:
    """Count the tokens of each row: prompt, image and, with `answers`, the answer.

    Equal to what the trainer's collator makes of the row; a test compares the two.
    """
    convention = checkpoint.convention
    rows: list[tuple[list[dict[str, Any]], Frame | None]] = []
    for sample in samples:
        own_turn = [prompts.says("assistant", target(sample, convention))] if answers else []
        rows.append((conversation(sample, convention) + own_turn, sample.size))
    return count_tokens(rows, checkpoint, answers=answers)


def check_length(
    samples: Sequence[Sample], checkpoint: Checkpoint | Loaded, limit: int, *, answers: bool = True, reserved: int = 0
) -> list[int]:
    """Return the tokens of each row: prompt, image and, with `answers` (SFT), the answer; nothing is truncated.

    Raises `FieldmarkError` for rows of more than `limit` tokens, of which `reserved` have to stay free (RL: the longest
    completion). It names the rows, their lengths and the settings to change.
    """
    counted = lengths(samples, checkpoint, answers=answers)
    refuse_long([sample.id for sample in samples], counted, limit, reserved=reserved)
    return counted


def refuse_long(names: Sequence[str], counted: Sequence[int], limit: int, *, reserved: int = 0) -> None:
    """Raise `FieldmarkError` naming the rows whose tokens, with `reserved` kept free, are more than `limit`."""
    long = [(name, count) for name, count in zip(names, counted, strict=True) if count + reserved > limit]
    if long:
        shown = ", ".join(f"{name} ({count} tokens)" for name, count in long[:5])
        free = f" with {reserved} tokens kept free for the completion" if reserved else ""
        raise FieldmarkError(
            f"{len(long)} of {len(names)} rows do not fit into max_tokens_per_sample = {limit}{free}: {shown}"
            f"{', ...' if len(long) > 5 else ''}. Raise max_tokens_per_sample, lower visual_tokens, or remove the rows."
        )
