"""Special tokens in people's words: a question with `<|im_end|>` would forge a turn, one with `<|image_pad|>` an image.

A tokenizer reads them wherever they stand, so they are refused before a text reaches it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mllm.errors import FieldmarkError
from mllm.prompting import prompts
from mllm.records import Sample

BOX_TOKENS = re.compile(r"<\|(?:object_ref|box|quad)_(?:start|end)\|>")
"""What some families write around boxes: a question about a box holds them rightly."""
Finder = Callable[[str], str | None]


class SpecialTokenError(FieldmarkError):
    """A text that holds a special token. Names where, and the token."""


def finder(tokenizer: Any) -> Finder:
    """Return a function that finds the first special token in a text, for the tokens of one tokenizer."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = {token for token in added | set(tokenizer.all_special_tokens) if not BOX_TOKENS.fullmatch(token)}
    pattern = re.compile("|".join(map(re.escape, sorted(tokens))) or "(?!)")

    def find(text: str) -> str | None:
        found = pattern.search(text)
        return found[0] if found else None

    return find


def refuse(texts: Iterable[tuple[str, str]], find: Finder, where: Callable[[], str] = str) -> None:
    """Raise `SpecialTokenError` if one of the texts, given with their fields, holds a special token."""
    for field, text in texts:
        if token := find(text):
            place = f"{where()}: field {field}" if where() else field
            raise SpecialTokenError(
                f"{place}: {token} is a special token of this model, which would take it for the end of a turn or for "
                "an image; take it out, or write it in other letters"
            )


def refuse_questions(samples: Sequence[Sample], style: str, tokenizer: Any) -> None:
    """Raise `SpecialTokenError` if what a sample asks, in a prompt style, holds a special token."""
    find = finder(tokenizer)
    for sample in samples:
        refuse([("question", prompts.user_text(sample, style))], find, lambda: f"sample {sample.id}")  # noqa: B023


def words_of(sample: Sample) -> Iterator[tuple[str, str]]:
    """Yield the texts of a sample that people or teachers wrote, with their fields."""
    yield from (("question", sample.question), ("entity", sample.entity), ("thought", sample.thought or ""))
    for field in ("asked", "options", "captions", "human_captions"):
        yield from ((f"{field}[{place}]", text) for place, text in enumerate(getattr(sample, field)))
    for place, thing in enumerate(sample.things):
        yield from ((f"things[{place}]", text) for text in (thing.entity, *thing.marks))
