"""People's words, before they reach a prompt: names are written in one way, and what is no word is found."""

import re
import unicodedata

from mllm.errors import FieldmarkError

_TOKEN = re.compile(r"<\|[^<>|\s]{1,60}\|>")
_LINES = "\t\n\r"


def name(written: str) -> str:
    """Return a name as it is asked for: `_` stands for a space, and no space is at its ends or doubled."""
    return " ".join(written.replace("_", " ").split())


def fault(text: str) -> str | None:
    """Say what is in a text that is no word: a special token of chat models, or a control character."""
    if found := _TOKEN.search(text):
        return f"{found[0]} is no word but a special token, which chat models obey; take it out"
    for letter in "" if text.isprintable() else text:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in _LINES:
            return f"{letter!a} is a control character, which nobody can see; take it out of {text!r:.60}"
    return None


def check(text: str, where: str, kind: type[FieldmarkError] = FieldmarkError) -> str:
    """Return a text, or raise an error that begins with `where` (file, line, field) if it holds what is no word."""
    if found := fault(text):
        raise kind(f"{where}: {found}")
    return text
