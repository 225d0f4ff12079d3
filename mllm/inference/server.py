"""An OpenAI-compatible server for one checkpoint: /v1/models, /v1/chat/completions, /health.

Images come as data URLs only, within limits: it fetches no URL and reads no file. Requests are answered in batches.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from mllm.errors import FieldmarkError
from mllm.inference import batched, openai_schema
from mllm.inference.admission import Bodies, Client, Places, client_of
from mllm.inference.backends import Generation
from mllm.inference.batched import Job
from mllm.inference.batcher import Batcher
from mllm.inference.hosts import Guard, own_names
from mllm.inference.openai_client import convention_field
from mllm.inference.openai_schema import ApiError, ChatRequest, ServerLimits
from mllm.inference.turns import LARGE_BODY, Pace, Paced

if TYPE_CHECKING:
    from mllm.models.checkpoint import Loaded

logger = logging.getLogger(__name__)


class Service:
    """The endpoints for one loaded model, called `name`; at most `batch` requests are answered in one batch.

    Requests are prepared and answered in turns: one of each client, then a second one of each. `hosts` are names that
    the server answers to besides this machine's own.
    """

    def __init__(
        self,
        loaded: Loaded,
        name: str,
        *,
        limits: ServerLimits = ServerLimits(),  # noqa: B008 - frozen
        batch: int = 8,
        hosts: Iterable[str] = (),
    ) -> None:
        # A token of real text has 4 letters or so: what has 16 a token of the context is refused before it is encoded.
        letters = 16 * (batched.context_of(loaded) or limits.text)
        self.loaded, self.name, self.limits = loaded, name, replace(limits, text=min(limits.text, letters))
        self.names = own_names(*hosts)
        self.preparing: Batcher[Callable[[], Job], Job] = Batcher(
            lambda calls: [call() for call in calls], max_batch=1, max_wait=0, threads=min(4, os.cpu_count() or 1)
        )
        self.batcher: Batcher[Job, Generation] = Batcher(partial(batched.generate, loaded), max_batch=batch)
        self.jobs: set[Job] = set()
        self.places, self.bodies, self.pace = Places(limits.requests), Bodies(limits), Pace()

    @property
    def pending(self) -> int:
        """Number of open requests."""
        return self.places.taken

    def app(self) -> Starlette:
        """Return the application, for any ASGI server."""
        routes = [
            Route("/", self.front),
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {ApiError: _api_error, HTTPException: _http_error, Exception: _internal_error}
        before = [Middleware(Paced, pace=self.pace), Middleware(Guard, names=self.names)]
        return Starlette(routes=routes, middleware=before, exception_handlers=handlers, lifespan=self._lifespan)

    async def front(self, request: Request) -> Response:
        """Tell a person who opens the address in a browser what it is for."""
        return PlainTextResponse(
            f"{self.name}, served by Fieldmark to OpenAI clients: base_url {request.base_url}v1, any api_key\n"
        )

    async def health(self, request: Request) -> Response:
        """Report that the server runs, and the number of pending requests."""
        return JSONResponse({"status": "ok", "requests": self.pending})

    async def models(self, request: Request) -> Response:
        """List the model."""
        return JSONResponse({"object": "list", "data": [self._description()]})

    async def model(self, request: Request) -> Response:
        """Describe the model."""
        self._check_name(request.path_params["name"])
        return JSONResponse(self._description())

    async def chat(self, request: Request) -> Response:
        """Answer a conversation, as one response or as a stream."""
        self.places.check()  # before the body: a full server says so at once
        async with self.bodies.read(request) as body:
            await _stay(request)
            if len(body) <= LARGE_BODY:
                chat_request, large = self._read(body)
            else:
                async with self.pace.turn(client_of(request, None)):
                    chat_request, large = await run_in_threadpool(self._read, body)
        client = client_of(request, chat_request.user)
        self.places.take(client)
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        try:
            make = partial(self._job, chat_request, pieces, asyncio.get_running_loop())
            preparing = self.preparing.submit(make, (client, large))
            if not await _wait(request, preparing):
                preparing.cancel()
            await _stay(request)
            job = preparing.result()
            future = self._submit(job, (client, large), pieces, asyncio.get_running_loop())
        except BaseException:
            self.places.leave(client)
            raise
        if chat_request.stream:
            return _Stream(self._stream(chat_request, job, future, pieces), job, future)
        if not await _wait(request, future):
            job.cancelled.set()
            future.cancel()
            return Response(status_code=499)  # the client has disconnected
        if (error := future.exception()) is not None:  # raising it would close the connection
            logger.error("an answer failed", exc_info=error)
            raise ApiError(500, f"the answer failed: {type(error).__name__}")
        generation = future.result()
        counts = openai_schema.usage(job.tokens, generation.tokens)
        return JSONResponse(openai_schema.completion(self.name, generation.text, _finish_reason(generation), counts))

    def _read(self, body: bytearray) -> tuple[ChatRequest, bool]:
        chat_request = openai_schema.read(body)
        self._check_name(chat_request.model)
        return chat_request, openai_schema.check(chat_request, self.limits)

    def _job(self, chat_request: ChatRequest, pieces: asyncio.Queue, loop: asyncio.AbstractEventLoop) -> Job:
        prompt, sampling = openai_schema.read_prompt(chat_request, self.limits), chat_request.sampling(self.limits)
        on_text = partial(loop.call_soon_threadsafe, pieces.put_nowait) if chat_request.stream else None
        try:
            return batched.prepare(self.loaded, prompt, sampling, stop=chat_request.stops, on_text=on_text)
        except FieldmarkError as error:
            code = "context_length_exceeded" if isinstance(error, batched.ContextError) else None
            raise ApiError(400, str(error), code=code, param="messages") from None

    def _submit(
        self, job: Job, turn: tuple[Client, bool], pieces: asyncio.Queue, loop: asyncio.AbstractEventLoop
    ) -> Future[Generation]:
        """Queue a job; its request is pending until the model has finished it."""

        def finished() -> None:
            self.jobs.discard(job)
            self.places.leave(turn[0])
            pieces.put_nowait(None)

        future = self.batcher.submit(job, turn)
        self.jobs.add(job)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(finished))
        return future

    async def _stream(
        self, chat_request: ChatRequest, job: Job, future: Future[Generation], pieces: asyncio.Queue
    ) -> AsyncIterator[str]:
        """Yield server-sent events: the role, pieces of text, the finish reason, and token counts if requested."""
        head = openai_schema.head(self.name, "chat.completion.chunk")
        yield _event(head | openai_schema.chunk({"role": "assistant", "content": ""}))
        while (text := await pieces.get()) is not None:
            yield _event(head | openai_schema.chunk({"content": text}))
        if (error := future.exception()) is not None:
            logger.error("an answer failed while it was streamed", exc_info=error)
            yield _event(ApiError(500, f"the answer failed: {type(error).__name__}").body())
            return
        generation = future.result()
        yield _event(head | openai_schema.chunk({}, _finish_reason(generation)))
        if chat_request.stream_options is not None and chat_request.stream_options.include_usage:
            yield _event(head | {"choices": [], "usage": openai_schema.usage(job.tokens, generation.tokens)})
        yield "data: [DONE]\n\n"

    def _description(self) -> dict[str, Any]:
        convention = convention_field(self.loaded.convention)  # tells clients how boxes are written
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "fieldmark", **convention}

    def _check_name(self, name: str) -> None:
        if name != self.name:
            message = f"no model {name!r}; this server has {self.name!r}"
            raise ApiError(404, message, code="model_not_found", param="model")

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        for job in self.jobs:
            job.cancelled.set()
        await run_in_threadpool(self.preparing.close)
        await run_in_threadpool(self.batcher.close)


class _Stream(StreamingResponse):
    """Server-sent events. A client that leaves, even before the first one, stops its row, or takes it off the queue."""

    def __init__(self, events: AsyncIterator[str], job: Job, future: Future[Generation]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._job, self._future = job, future

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.cancelled.set()
            self._future.cancel()


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address; connections to it are refused until it listens. Raises FieldmarkError: it cannot be had."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        reason = error.strerror or error
        raise FieldmarkError(
            f"cannot listen at {host}, port {port}: {reason}; choose another --port or --host"
        ) from None
    return bound


def run(service: Service, bound: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; running answers then get five seconds."""
    import uvicorn

    with suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(service.app(), timeout_graceful_shutdown=5)).run(sockets=[bound])


async def _stay(request: Request) -> None:
    """Raise ApiError 499 if the client has left: nothing is done for it any more."""
    if await request.is_disconnected():
        raise ApiError(499, "the client has left")


async def _wait(request: Request, future: Future[Any]) -> bool:
    """Wait until the answer is there (True) or its client has disconnected (False)."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, leaving = asyncio.wrap_future(future), asyncio.create_task(disconnected())
    await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if answer.done() and not answer.cancelled():
        answer.exception()  # retrieved, so that asyncio does not warn; the caller handles it
        return True
    return False


def _finish_reason(generation: Generation) -> str:
    return "length" if generation.truncated else "stop"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


# Handlers that are not async would queue for a thread.
async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {"Retry-After": "1"} if error.status == 503 else None  # in seconds
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}").body()
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    body = ApiError(500, f"the answer failed: {type(error).__name__}").body()
    return JSONResponse(body, status_code=500, headers={"Connection": "close"})
