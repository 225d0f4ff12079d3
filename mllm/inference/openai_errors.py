"""Failures of an OpenAI-compatible server: which pass, which end a run, and what they are called when counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from time import time
from typing import Any


class Malformed(Exception):
    """An answer of the server that is no chat completion."""


def asked_to_wait(error: BaseException | None) -> float | None:
    """Return the seconds that a response's Retry-After asks for (RFC 9110, 10.2.3: seconds or a date), None without."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except ValueError:
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None


def errors() -> tuple[type[Exception], ...]:
    """Return what a call may raise: the client's own errors, and answers that are no JSON or no completion."""
    from openai import OpenAIError

    return OpenAIError, json.JSONDecodeError, UnicodeDecodeError, Malformed


def checked(completion: Any) -> Any:
    """Return a completion after looking at it: the client builds its objects from whatever comes, unchecked."""
    try:
        choice = completion.choices[0]
        usage = completion.usage
        no_words = choice.message.content is None and choice.finish_reason in ("length", "content_filter")
        sound = isinstance(choice.message.content, str) or no_words  # all its room went into thinking, or was refused
        sound &= usage is None or {type(usage.prompt_tokens), type(usage.completion_tokens)} == {int}
    except (AttributeError, IndexError, TypeError) as error:
        raise Malformed(f"no chat completion: {str(completion)[:100]!r} ({error})") from None
    if not sound:
        raise Malformed(f"no chat completion: {str(completion)[:100]!r}")
    return completion


def is_passing(error: BaseException) -> bool:
    """Whether the same call may go well later: no connection, timed out, too many, server in trouble, no JSON."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return hopeless(error) is None and error.status_code in (408, 409, 425, 429, *range(500, 600))
    return isinstance(error, (openai.APIConnectionError, json.JSONDecodeError, UnicodeDecodeError, Malformed))


def hopeless(error: Exception) -> str | None:
    """Say why every other request would fail as well; None where it need not."""
    import openai

    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        return "the key is refused: set OPENAI_API_KEY"
    if isinstance(error, openai.NotFoundError):
        return "no such model or address: set FIELDMARK_TEACHER_MODEL and OPENAI_BASE_URL (which ends in /v1)"
    if isinstance(error, openai.RateLimitError) and getattr(error, "code", None) == "insufficient_quota":
        return "the account has no credit left"
    return None


def reason(error: Exception) -> str:
    """Return the short stable name under which a failure is counted."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return f"server answered {error.status_code}"
    if isinstance(error, openai.APITimeoutError):
        return "server timed out"
    if isinstance(error, openai.APIConnectionError):
        return "connection failed"
    return "malformed answer"


def short(error: Exception) -> str:
    """Return an error's message on one line, with its cause, 200 letters at most."""
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return " ".join(f"{error}{cause}".split())[:200]
