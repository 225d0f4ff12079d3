"""An OpenAI-compatible server for one of our checkpoints: /v1/models, /v1/chat/completions, /health.

transformers has a server of its own; it fetches any URL and reads any file that a request names, loads any model that
is asked for, has no limit on what waits, and answers requests one by one. This one does none of that: images come
as data URLs within limits, requests that arrive together share a batch, and an answer is the one that
`mllm.inference.generate` gives for the same prompt. Prompt styles are left to the client, which sends the full text.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mllm.errors import FieldmarkError
from mllm.inference import batched, openai_client, openai_schema
from mllm.inference.batched import Job, Written
from mllm.inference.batcher import Gatherer
from mllm.inference.openai_schema import ChatRequest, Limits, WireError

if TYPE_CHECKING:
    from mllm.models.checkpoint import Loaded

logger = logging.getLogger(__name__)
RETRY_AFTER = 1
"""Seconds after which a client that was turned away may come back."""


class Service:
    """The endpoints over one loaded model.

    Args:
        loaded: the model.
        name: what clients call it.
        limits: of a request and of how many are under way.
        batch: requests that are answered together, at most.
    """

    def __init__(self, loaded: Loaded, name: str, *, limits: Limits = Limits(), batch: int = 8) -> None:  # noqa: B008
        self.loaded, self.name, self.limits = loaded, name, limits
        self.gatherer: Gatherer[Job, Written] = Gatherer(partial(batched.write, loaded), most=batch)
        self.jobs: set[Job] = set()
        self.inside = 0

    def app(self) -> Starlette:
        """Return the application, for any ASGI server."""
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {WireError: _refused, HTTPException: _no_such_route, Exception: _broken}
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    async def health(self, request: Request) -> Response:
        """Say that the server is there, and how busy it is."""
        return JSONResponse({"status": "ok", "requests": self.inside})

    async def models(self, request: Request) -> Response:
        """List the one model."""
        return JSONResponse({"object": "list", "data": [self._told()]})

    async def model(self, request: Request) -> Response:
        """Describe the one model."""
        self._check_name(request.path_params["name"])
        return JSONResponse(self._told())

    async def chat(self, request: Request) -> Response:
        """Answer a conversation, whole or in pieces."""
        if self.inside >= self.limits.requests:
            raise WireError(503, f"{self.inside} requests are under way; come back later", code="overloaded")
        self.inside += 1
        try:
            asked = openai_schema.read(await _body(request, self.limits.body))
            self._check_name(asked.model)
            pieces: asyncio.Queue[str | None] = asyncio.Queue()
            job = await run_in_threadpool(self._job, asked, pieces, asyncio.get_running_loop())
            future = self._submit(job, pieces, asyncio.get_running_loop())
        except BaseException:
            self.inside -= 1
            raise
        if asked.stream:
            return StreamingResponse(self._stream(asked, job, future, pieces), media_type="text/event-stream")
        if not await _waited(request, future):
            job.gone.set()
            future.cancel()
            return Response(status_code=499)  # nobody reads it: the client has left
        if (error := future.exception()) is not None:  # not raised as it is: that would close a connection kept open
            logger.error("an answer failed", exc_info=error)
            raise WireError(500, f"the answer failed: {type(error).__name__}")
        written = future.result()
        counts = openai_schema.usage(job.tokens, written.tokens)
        return JSONResponse(openai_schema.completion(self.name, written.text, _finish(written), counts))

    def _job(self, asked: ChatRequest, pieces: asyncio.Queue, loop: asyncio.AbstractEventLoop) -> Job:
        """Open the images and make the model's inputs; runs in a thread."""
        turns, images = openai_schema.conversation(asked, self.limits)
        settings = {
            "max_new_tokens": asked.room(self.limits),
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "seed": asked.chosen_seed(),
            "stop": asked.stops,
            "tell": partial(loop.call_soon_threadsafe, pieces.put_nowait) if asked.stream else None,
        }
        try:
            return batched.prepare(self.loaded, turns, images, **settings)
        except FieldmarkError as error:
            raise WireError(400, str(error), code="context_length_exceeded", param="messages") from None

    def _submit(self, job: Job, pieces: asyncio.Queue, loop: asyncio.AbstractEventLoop) -> Future[Written]:
        """Queue a job; it counts as under way until the model is done with it."""

        def leave() -> None:
            self.jobs.discard(job)
            self.inside -= 1
            pieces.put_nowait(None)

        self.jobs.add(job)
        future = self.gatherer.submit(job)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(leave))
        return future

    async def _stream(
        self, asked: ChatRequest, job: Job, future: Future[Written], pieces: asyncio.Queue
    ) -> AsyncIterator[str]:
        """Server-sent events: the role, pieces of text, the end, and the tokens where they were asked for."""
        chunks = openai_schema.Chunks(self.name)
        try:
            yield _event(chunks.piece({"role": "assistant", "content": ""}))
            while (text := await pieces.get()) is not None:
                yield _event(chunks.piece({"content": text}))
            if (error := future.exception()) is not None:
                logger.error("an answer broke off", exc_info=error)
                yield _event(WireError(500, f"the answer broke off: {type(error).__name__}").body())
                return
            written = future.result()
            yield _event(chunks.piece({}, _finish(written)))
            if asked.stream_options is not None and asked.stream_options.include_usage:
                yield _event(chunks.usage(openai_schema.usage(job.tokens, written.tokens)))
            yield "data: [DONE]\n\n"
        finally:
            job.gone.set()  # a client that leaves early stops its row

    def _told(self) -> dict[str, Any]:
        how = openai_client.described(self.loaded.convention)  # so that a client need not guess how boxes are written
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "fieldmark", **how}

    def _check_name(self, name: str) -> None:
        if name != self.name:
            raise WireError(
                404, f"no model {name!r} here; this server has {self.name!r}", code="model_not_found", param="model"
            )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        for job in self.jobs:
            job.gone.set()
        await run_in_threadpool(self.gatherer.close)


def run(service: Service, host: str, port: int) -> None:
    """Serve until the process is told to stop (SIGINT, SIGTERM); answers under way get five seconds."""
    import uvicorn

    uvicorn.run(service.app(), host=host, port=port, timeout_graceful_shutdown=5)


async def _body(request: Request, limit: int) -> bytes:
    """Read a request's body within the limit. JSON must be declared: pages of other sites cannot send that unasked."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise WireError(415, "send the request with Content-Type: application/json")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise WireError(413, f"the request is larger than {limit} bytes; send smaller images")
        parts.append(part)
    return b"".join(parts)


async def _waited(request: Request, future: Future[Written]) -> bool:
    """Wait for an answer, or for its client to leave; whether the answer came."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, leaving = asyncio.wrap_future(future), asyncio.create_task(left())
    await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if answer.done() and not answer.cancelled():
        answer.exception()  # looked at, so that asyncio does not complain: the caller takes the future's own
        return True
    return False


def _finish(written: Written) -> str:
    return "length" if written.truncated else "stop"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, WireError)
    headers = {"Retry-After": str(RETRY_AFTER)} if error.status == 503 else None
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(WireError(error.status_code, f"{request.method} {request.url.path}: {error.detail}").body(),
                        status_code=error.status_code, headers=error.headers)  # fmt: skip


def _broken(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw; the server logs it with its traceback."""
    body = WireError(500, f"the answer failed: {type(error).__name__}").body()
    return JSONResponse(body, status_code=500, headers={"Connection": "close"})
