"""Which names a server on this machine answers to, and from which pages: for `fieldmark serve` and `fieldmark web`.

A page anywhere can point its own name at this machine (DNS rebinding) and have a visitor's browser ask the server. Such
a request bears the page's name in its Host header, and a name that is not the server's own is refused.
"""

import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

from mllm.inference.turns import Pace, Paced

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/@\s]+)(:\d{1,5})?")


def own_names(*given: str) -> frozenset[str]:
    """Return the names of this machine: localhost, its own name, and the `given` ones."""
    own = socket.gethostname()
    return frozenset(name.lower().rstrip(".") for name in ("localhost", own, own.partition(".")[0], *given) if name)


def is_own(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header names this machine. An address in numbers always does: no other page can have it."""
    match = _HOST.fullmatch(host.strip().lower())
    if match is None:
        return False
    name = match[1].rstrip(".")
    if name in names or name.endswith(".localhost"):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class Guard:
    """An ASGI application in front of another: it answers requests for foreign names with status 421.

    With `same_origin`, requests that a browser sends from another page (their Origin is not the Host) get status 403,
    whatever the application says about such pages (CORS). `largest` is the most bytes of a body at a path: what says
    that it has more, or does not say how many it has, is refused before it is read.
    """

    def __init__(
        self,
        app: App,
        names: Iterable[str],
        *,
        same_origin: bool = False,
        largest: Callable[[str], int] | None = None,
    ) -> None:
        self.app, self.names, self.same_origin, self.largest = app, frozenset(names), same_origin, largest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            status, message = refusal
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": "refused"}
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        """Return status and message of a refusal; None for a request that may pass."""
        found = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in found if name == b"host"]
        if strange := next((host for host in hosts or [""] if not is_own(host, self.names)), None):
            name = strange.partition(":")[0][:100]
            return 421, f"this server does not answer to the name {name!r}; if it is yours, start it with --allow-host"
        if not hosts:
            return 421, "the request has no Host header"
        for origin in (value for name, value in found if name == b"origin" and self.same_origin):
            place = origin.partition("://")[2]
            # Behind a proxy that replaces the Host, the page's own name is one that --allow-host gave.
            if place.lower() != hosts[0].strip().lower() and place.partition(":")[0] not in self.names - {"localhost"}:
                return 403, f"requests from other pages are refused, and this one came from {origin[:100]!r}"
        return None if self.largest is None else _too_large(dict(found), self.largest(scope["path"]))


def _too_large(headers: dict[bytes, str], largest: int) -> tuple[int, str] | None:
    if b"transfer-encoding" in headers:
        return 411, "send the request with a Content-Length"
    length = headers.get(b"content-length", "0")
    return (413, f"the request is larger than {largest} bytes") if int(length) > largest else None


@asynccontextmanager
async def guarded(app: Any, names: Iterable[str], largest: Callable[[str], int]) -> AsyncIterator[None]:
    """A lifespan that puts `Paced` and a `Guard` in front of a Starlette application that another package builds.

    A middleware given to it would stand behind those that the package adds, and one of gradio's lets every page in
    (CORS with credentials). At the start of the lifespan they are all in place.
    """
    guard = Guard(app.middleware_stack, names, same_origin=True, largest=largest)
    app.middleware_stack = Paced(guard, Pace(), between=0.1)
    yield
