"""Errors of an OpenAI-compatible server: which are transient, which are fatal, and the names to count them under."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from math import isfinite
from time import time
from typing import Any, TypeVar

from mllm.errors import FieldmarkError
from mllm.io.codec import is_utf8

T = TypeVar("T")
MOST_TOKENS = 10**9
"""A larger token count of one reply is no count."""


class Malformed(Exception):
    """A reply of the server that is not a chat completion."""


class TooLong(Exception):
    """A reply that does not end."""


class Redirected(Exception):
    """A server that sends requests on to another one."""


def retry_after(error: BaseException | None) -> float | None:
    """Return the seconds in a response's Retry-After header (RFC 9110, 10.2.3: seconds or a date), None without one."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, OverflowError):  # a zone or a year of many digits
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None


def errors() -> tuple[type[Exception], ...]:
    """Return what a call inside `reading` may raise: the client's own errors and those of this module."""
    from openai import OpenAIError

    return OpenAIError, Malformed, TooLong, Redirected


@contextmanager
def reading() -> Iterator[None]:
    """Raise `Malformed` for a reply that Python cannot read: broken or too deep JSON, a number of 5,000 digits ..."""
    try:
        yield
    except FieldmarkError:  # a ValueError, too
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None


def received(chunks: Iterable[T]) -> Iterator[T]:
    """Yield the chunks of a stream, each read inside `reading`."""
    stream, end = iter(chunks), object()
    while True:
        with reading():
            chunk: Any = next(stream, end)
        if chunk is end:
            return
        yield chunk


def check_completion(completion: Any) -> Any:
    """Return a completion after checking it; the client itself accepts anything.

    Token counts that cannot be true are removed: the reply was paid for, and counts as one without a count.
    """
    try:
        choice = completion.choices[0]
        usage = completion.usage
        no_text = choice.message.content is None and choice.finish_reason in ("length", "content_filter")
        valid = isinstance(choice.message.content, str) or no_text  # all tokens were reasoning, or it was filtered
        valid &= usage is None or {type(usage.prompt_tokens), type(usage.completion_tokens)} == {int}
    except (AttributeError, IndexError, TypeError) as error:
        raise Malformed(f"not a chat completion: {str(completion)!r} ({error})") from None
    if not valid:
        raise Malformed(f"not a chat completion: {str(completion)!r}")
    if not is_utf8(choice.message.content or ""):
        raise Malformed("the reply ends in half a character")
    if usage is not None and not all(0 <= n <= MOST_TOKENS for n in (usage.prompt_tokens, usage.completion_tokens)):
        completion.usage = None
    return completion


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed: connection failed, timeout, rate limit, server error, malformed reply."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return fatal_reason(error) is None and error.status_code in (408, 409, 425, 429, *range(500, 600))
    return fatal_reason(error) is None and isinstance(error, (openai.APIConnectionError, Malformed, TooLong))


def fatal_reason(error: BaseException) -> str | None:
    """Return why every further request would fail too; None where a retry or another request may succeed."""
    import openai

    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        return "the key is refused: set OPENAI_API_KEY"
    if isinstance(error, openai.NotFoundError):
        return "no such model or address: set FIELDMARK_TEACHER_MODEL and OPENAI_BASE_URL (which ends in /v1)"
    if isinstance(error, openai.RateLimitError) and getattr(error, "code", None) == "insufficient_quota":
        return "the account has no credit left"
    cause = next((one for one in (error, error.__cause__) if isinstance(one, Redirected)), None)
    return None if cause is None else str(cause)


def reason(error: Exception) -> str:
    """Return a short stable name to count an error under."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return f"server answered {error.status_code}"
    if isinstance(error, (openai.APITimeoutError, TooLong)) or isinstance(error.__cause__, TooLong):
        return "server timed out"
    if isinstance(error, openai.APIConnectionError):
        return "connection failed"
    if isinstance(error, Redirected):
        return "redirected"
    return "malformed answer"


def short(error: Exception, key: str = "") -> str:
    """Return an error's message with its cause on one line, at most 200 characters, without the `key` in it."""
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    text = " ".join(f"{error}{cause}".split())
    return (text.replace(key, "(the key)") if len(key) >= 8 else text)[:200]
