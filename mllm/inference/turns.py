"""Turns of clients: one of each, then a second one of each, whoever sent the most; large bodies rest in between.

Reading and checking large requests would otherwise take the interpreter from the model.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

LARGE_BODY = 2**16
"""Bytes of a body that are read at once; what is beyond them is read in turns."""
UNREAD_SECONDS = 5.0
"""How long the rest of a body is still taken whose request has been answered."""


class Turns(Generic[T]):
    """A queue that gives one item of each client, then a second one of each."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()  # the next client comes first

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, client: Hashable, item: T) -> None:
        """Queue an item."""
        self._queues.setdefault(client, deque()).append(item)

    def take(self) -> T:
        """Take one item of the client whose turn it is; that client comes last then."""
        client, queue = self._queues.popitem(last=False)
        taken = queue.popleft()
        if queue:
            self._queues[client] = queue
        return taken


class Pace:
    """Work on large requests, one piece at a time in turns; each piece is followed by a rest `REST` times as long.

    `turn` takes the shortest rest, in seconds.
    """

    REST, LONGEST_REST = 3.0, 2.0

    def __init__(self) -> None:
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._busy = False

    @asynccontextmanager
    async def turn(self, client: Hashable, rest: float = 0.0) -> AsyncIterator[None]:
        """Wait for a turn. The block is the piece of work; it must not wait for the client."""
        if self._busy:
            granted = asyncio.get_running_loop().create_future()
            self._waiting.put(client, granted)
            try:
                await granted
            except asyncio.CancelledError:
                if not granted.cancelled():  # the turn came at the same moment
                    self._next()
                raise
        self._busy = True
        start = time.monotonic()
        try:
            yield
        finally:
            rest = max(rest, min(self.REST * (time.monotonic() - start), self.LONGEST_REST))
            asyncio.get_running_loop().call_later(rest, self._next)

    def _next(self) -> None:
        while self._waiting:
            granted = self._waiting.take()
            if not granted.done():
                granted.set_result(None)
                return
        self._busy = False


class Paced:
    """An ASGI application in front of another: what a body has beyond `LARGE_BODY` bytes arrives in turns.

    The rest of a body whose request has been answered is read in turns, too, and dropped, then the connection is
    closed: the server would read it without rests, and closing at once would lose the answer. `between` are the seconds
    between two requests with large bodies or files.
    """

    def __init__(self, app: Any, pace: Pace, between: float = 0.0) -> None:
        self.app, self.pace, self.between = app, pace, between

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        client = (scope["client"] or ("",))[0], headers.get(b"authorization", ""), ""
        size, more = 0, scope["method"] in ("POST", "PUT", "PATCH")
        large = int(headers.get(b"content-length", "0")) > LARGE_BODY or b"transfer-encoding" in headers
        if self.between and more and (large or headers.get(b"content-type", "").startswith("multipart/")):
            async with self.pace.turn(client, self.between):
                pass

        async def received() -> Any:
            nonlocal size, more
            if more and size >= LARGE_BODY:
                async with self.pace.turn(client):
                    arriving = asyncio.ensure_future(receive())
                    for _ in range(3):  # until what has come over the network is read; waiting for more takes no work
                        await asyncio.sleep(0)
                message = await arriving
            else:
                message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            return message

        async def sent(message: Any) -> None:
            if not more:
                await send(message)
            elif message["type"] == "http.response.start":
                await send(message | {"headers": [*message.get("headers", ()), (b"connection", b"close")]})
            elif message.get("more_body", False):
                await send(message)
            else:
                await send(message | {"more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(UNREAD_SECONDS):
                        while more:
                            await received()
                await send({"type": "http.response.body"})

        await self.app(scope, received, sent)
