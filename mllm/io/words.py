"""Text of users before it reaches a prompt: one spelling of names; special tokens and control characters are found."""

import re
import unicodedata

from mllm.errors import FieldmarkError

_TOKEN = re.compile(r"<\|[^<>|\s]{1,60}\|>")
_LINES = "\t\n\r"


def name(written: str) -> str:
    """Return a name as it is asked for: `_` stands for a space, no space is at its ends or doubled, and "é" is one
    letter (Unicode NFC)."""
    return " ".join(unicodedata.normalize("NFC", written).replace("_", " ").split())


def fault(text: str) -> str | None:
    """Return what a text must not contain, as a sentence: a special token of chat models, or a control character."""
    if found := _TOKEN.search(text):
        return f"{found[0]} is a special token, which chat models obey; take it out"
    for letter in "" if text.isprintable() else text:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in _LINES:
            return f"{letter!a} is an invisible control character; take it out of {text!r:.60}"
    return None


def check(text: str, where: str, kind: type[FieldmarkError] = FieldmarkError) -> str:
    """Return a text. Raises `kind`, with `where` (file, line, field) in front, if `fault` finds something in it."""
    if found := fault(text):
        raise kind(f"{where}: {found}")
    return text
