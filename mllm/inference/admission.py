"""Who gets in, and how much at once: request bodies within limits, and a bounded number of open requests.

Neither a body that arrives slowly nor one client with many requests keeps the others out.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from mllm.inference.openai_schema import ApiError, ServerLimits

Client = tuple[str, str, str]
"""Whom requests are counted for: network address, key, and OpenAI's field `user`; the last two are not verified."""


def client_of(request: Request, user: str | None) -> Client:
    """Return whom a request is counted for."""
    address = "" if request.client is None else request.client.host
    return address, request.headers.get("authorization", ""), user or ""


class Places:
    """The open requests of each client, at most `limit`; a quarter more for clients that have none open."""

    def __init__(self, limit: int) -> None:
        self.limit, self._open = limit, Counter[Client]()

    @property
    def taken(self) -> int:
        """Number of open requests."""
        return self._open.total()

    def check(self, client: Client | None = None) -> None:
        """Raise ApiError 503 if all places are taken for this client (None: for any client)."""
        room = self.limit if client in self._open else self.limit + self.limit // 4
        if self.taken >= room:
            raise ApiError(503, f"{self.taken} requests are pending; retry later", code="overloaded")

    def take(self, client: Client) -> None:
        """Count a request as open. Raises as `check`."""
        self.check(client)
        self._open[client] += 1

    def leave(self, client: Client) -> None:
        """Count a request as answered."""
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]


class Bodies:
    """The bodies that are being read. Together they hold `limits.bodies` bytes; the largest have to give way."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._sizes: dict[int, int] = {}

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """Read a body, and count it until the block ends.

        Raises ApiError: 415 if it is not JSON (which stops the forms of other sites), 413 if it is too large, 408 if
        it takes too long, 503 if too much is being read, 499 if the client leaves.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "send the request with Content-Type: application/json")
        declared = request.headers.get("content-length", "")
        self._check(int(declared) if declared.isdecimal() else 0)  # before it is read
        try:
            yield await self._arrived(request)
        finally:
            self._sizes.pop(id(request), None)

    async def _arrived(self, request: Request) -> bytearray:
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for part in request.stream():
                    body += part
                    self._sizes[id(request)] = len(body)
                    self._check(len(body))
        except TimeoutError:
            raise ApiError(408, f"the request took more than {self._limits.body_seconds:g} seconds to arrive") from None
        except ClientDisconnect:
            raise ApiError(499, "the client has left") from None
        return body

    def _check(self, size: int) -> None:
        if size > self._limits.body:
            raise ApiError(413, f"the request is larger than {self._limits.body} bytes; send smaller images")
        if sum(self._sizes.values()) > self._limits.bodies < size * len(self._sizes):
            raise ApiError(503, "many large requests are arriving; retry later", code="overloaded")
