"""The HTTP client of OpenAI-compatible servers: replies end, stay small, and come from the server asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from mllm.errors import FieldmarkError
from mllm.inference.openai_errors import Redirected, TooLong

LONGEST_REPLY = 64 * 2**20
"""Most bytes of one reply; one of 100,000 tokens has under a megabyte."""


def client(who: str, url: str | None, key: str, *, timeout: float, longest: float, retries: int) -> Any:
    """Return OpenAI's client for a server.

    Args:
        who: begins the error where the package is missing.
        url: address that ends in /v1; None is OpenAI's own.
        key: sent to the server, and nowhere else: redirects to other hosts are errors.
        timeout: seconds without a byte after which a call is aborted.
        longest: seconds after which a call is aborted although bytes arrive, counted once its headers are there.
        retries: calls that the client itself repeats.

    Raises FieldmarkError: the `openai` extra is not installed.
    """
    try:
        import tenacity  # noqa: F401 - of the same extra
        from openai import DefaultHttpxClient, OpenAI
    except ImportError as error:
        raise FieldmarkError(f"{who}: {error}; install it with: pip install 'fieldmark[openai]'") from None

    def sent(request: Any) -> None:
        request.extensions["deadline"] = time.monotonic() + longest

    def received(response: Any) -> None:
        _check_redirect(response)
        response.stream = _bounded(response.stream, response.request.extensions["deadline"], longest)

    http = DefaultHttpxClient(event_hooks={"request": [sent], "response": [received]})
    return OpenAI(base_url=url, api_key=key or "none", timeout=timeout, max_retries=retries, http_client=http)


def _check_redirect(response: Any) -> None:
    """Raise `Redirected` for a redirect that would take the request, its texts and images, to another server."""
    if not response.has_redirect_location:
        return
    here, there = response.url, response.url.join(response.headers["location"])
    upgraded = (here.scheme, there.scheme) == ("http", "https")
    if there.host != here.host or (not upgraded and (there.scheme, there.port) != (here.scheme, here.port)):
        place = f"{there.scheme}://{there.host}" + (f":{there.port}" if there.port else "")
        raise Redirected(
            f"the server sends requests on to {place[:100]}; if you trust that one, name it as the address"
        )


def _bounded(stream: Any, deadline: float, longest: float) -> Any:
    """Wrap the body of a response, so that reading it raises `TooLong` when it takes too long or does not end."""
    from httpx2 import SyncByteStream  # the client's own

    class Bounded(SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in stream:
                size += len(part)
                if size > LONGEST_REPLY:
                    raise TooLong(f"the reply has more than {LONGEST_REPLY} bytes")
                if time.monotonic() > deadline:
                    raise TooLong(f"the reply took more than {longest:g} seconds")
                yield part

        def close(self) -> None:
            stream.close()

    return Bounded()
