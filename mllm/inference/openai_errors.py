"""Errors of an OpenAI-compatible server: which are transient, which are fatal, and the names to count them under."""

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from time import time
from typing import Any


class Malformed(Exception):
    """A reply of the server that is not a chat completion."""


def retry_after(error: BaseException | None) -> float | None:
    """Return the seconds in a response's Retry-After header (RFC 9110, 10.2.3: seconds or a date), None without one."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except ValueError:
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None


def errors() -> tuple[type[Exception], ...]:
    """Return what a call may raise: the client's own errors, and errors for replies that are not valid."""
    from openai import OpenAIError

    return OpenAIError, json.JSONDecodeError, UnicodeDecodeError, Malformed


def check_completion(completion: Any) -> Any:
    """Return a completion after checking it; the client itself accepts anything."""
    try:
        choice = completion.choices[0]
        usage = completion.usage
        no_text = choice.message.content is None and choice.finish_reason in ("length", "content_filter")
        valid = isinstance(choice.message.content, str) or no_text  # all tokens were reasoning, or it was filtered
        valid &= usage is None or {type(usage.prompt_tokens), type(usage.completion_tokens)} == {int}
    except (AttributeError, IndexError, TypeError) as error:
        raise Malformed(f"not a chat completion: {str(completion)[:100]!r} ({error})") from None
    if not valid:
        raise Malformed(f"not a chat completion: {str(completion)[:100]!r}")
    return completion


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed: connection failed, timeout, rate limit, server error, malformed reply."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return fatal_reason(error) is None and error.status_code in (408, 409, 425, 429, *range(500, 600))
    return isinstance(error, (openai.APIConnectionError, json.JSONDecodeError, UnicodeDecodeError, Malformed))


def fatal_reason(error: Exception) -> str | None:
    """Return why every further request would fail too; None where a retry or another request may succeed."""
    import openai

    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        return "the key is refused: set OPENAI_API_KEY"
    if isinstance(error, openai.NotFoundError):
        return "no such model or address: set FIELDMARK_TEACHER_MODEL and OPENAI_BASE_URL (which ends in /v1)"
    if isinstance(error, openai.RateLimitError) and getattr(error, "code", None) == "insufficient_quota":
        return "the account has no credit left"
    return None


def reason(error: Exception) -> str:
    """Return a short stable name to count an error under."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return f"server answered {error.status_code}"
    if isinstance(error, openai.APITimeoutError):
        return "server timed out"
    if isinstance(error, openai.APIConnectionError):
        return "connection failed"
    return "malformed answer"


def short(error: Exception) -> str:
    """Return an error's message with its cause on one line, at most 200 characters."""
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return " ".join(f"{error}{cause}".split())[:200]
