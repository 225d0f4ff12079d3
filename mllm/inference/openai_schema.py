"""The part of OpenAI's chat completions API that `fieldmark serve` supports: requests, completions, chunks, errors.

Unsupported fields that would change an answer are rejected by name; notes (`user`, `metadata`, `store`) are ignored.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllm.errors import ImageError
from mllm.inference.backends import Prompt
from mllm.inference.sampling import Sampling
from mllm.io.images import image_from_bytes, size_from_bytes

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one request, and of how many requests are accepted."""

    body: int = 32 * 2**20  # bytes of a request body
    bodies: int = 512 * 2**20  # bytes of all bodies that are being read
    body_seconds: float = 60  # until a body has arrived
    text: int = 1_000_000  # letters of all messages
    images: int = 8  # in a request
    pixels: int = 25_000_000  # of an image before it is resized
    all_pixels: int = 50_000_000  # of all images of a request before they are resized
    tokens: int = 4096  # of an answer
    requests: int = 64  # running or queued; further ones get status 503 with Retry-After


class ApiError(Exception):
    """An error response: an HTTP status and OpenAI's error object."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        message = message if len(message) <= 1000 else f"{message[:1000]} ..."  # it may quote the request
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param and param[:200]

    def body(self) -> dict[str, Any]:
        """Return the error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


STOPS, STOP_LENGTH = 4, 200
"""Most stop texts of a request, and most letters of one: the answer is searched for them after each token."""
LARGE_PIXELS, LARGE_TEXT = 4_000_000, 20_000
"""Requests with more pixels or letters take turns with all others of their client: they keep no small one waiting."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Text(_Strict):
    type: Literal["text"]
    text: str


class _Url(_Strict):
    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class _Image(_Strict):
    type: Literal["image_url"]
    image_url: _Url


class _Turn(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str | list[Annotated[_Text | _Image, Field(discriminator="type")]]
    name: str | None = None


class _StreamOptions(_Strict):
    include_usage: bool = False


class ChatRequest(_Strict):
    """The body of POST /v1/chat/completions. Greedy unless a temperature is given."""

    model: str
    messages: list[_Turn] = Field(min_length=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: Literal[1] | None = None
    frequency_penalty: float | None = Field(default=None, ge=0, le=0)
    presence_penalty: float | None = Field(default=None, ge=0, le=0)
    logprobs: Literal[False] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts, without empty ones."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    def sampling(self, limits: ServerLimits) -> Sampling:
        """Return the options of generation; without a seed, a random one. Raises ApiError 400 above the limit."""
        wanted = self.max_completion_tokens or self.max_tokens
        if wanted is not None and wanted > limits.tokens:
            raise ApiError(400, f"max_tokens is {wanted}; this server allows {limits.tokens}", param="max_tokens")
        seed = secrets.randbits(32) if self.seed is None else self.seed % 2**63  # torch takes 64 bits, signed
        return Sampling(wanted or min(512, limits.tokens), self.temperature, self.top_p, seed)


def read(body: bytes | bytearray) -> ChatRequest:
    """Parse the body of a request. Raises ApiError 400, which names the first invalid field."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]  # an input may be an image of megabytes
        field = ".".join(str(step) for step in first["loc"])
        known = f"; known fields: {', '.join(ChatRequest.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise ApiError(400, f"{field or 'body'}: {first['msg']}{known}", param=field or None) from None


def check(request: ChatRequest, limits: ServerLimits) -> bool:
    """Check all that can be checked without decoding an image or a tokenizer; return whether the request is large.

    Raises ApiError 400: too many or too long stop texts; too much text; too many images; an image that is not a data
    URL (this server fetches no URLs and reads no files), is in no known format or too large; too many pixels in all.
    """
    if len(request.stops) > STOPS or any(len(one) > STOP_LENGTH for one in request.stops):
        raise ApiError(400, f"stop: at most {STOPS} texts of {STOP_LENGTH} letters each", param="stop")
    letters, pixels = 0, 0
    for turn in request.messages:
        texts = (
            [turn.content] if isinstance(turn.content, str) else [getattr(part, "text", "") for part in turn.content]
        )
        letters += sum(map(len, texts)) + 16 * (1 + len(texts))  # turns and parts become tokens, too
    if letters > limits.text:
        message = f"the messages have {letters} letters; this server takes {limits.text}"
        raise ApiError(400, message, code="context_length_exceeded", param="messages")
    if len(list(_urls(request))) > limits.images:
        raise ApiError(400, f"more than {limits.images} images in one request", param="messages")
    for field, url in _urls(request):
        size = _image(url, field, limits, size_from_bytes)
        pixels += int(size.width * size.height)
        if pixels > limits.all_pixels:
            message = f"the images have more than {limits.all_pixels} pixels in all; send smaller ones"
            raise ApiError(400, message, param="messages")
    return pixels > LARGE_PIXELS or letters > LARGE_TEXT


def read_prompt(request: ChatRequest, limits: ServerLimits) -> Prompt:
    """Return the messages of a checked request as chat templates take them, with their images.

    Raises ApiError 400: an image cannot be opened.
    """
    images = [_image(url, field, limits, image_from_bytes) for field, url in _urls(request)]
    turns: list[dict[str, Any]] = []
    for turn in request.messages:
        content = [_Text(type="text", text=turn.content)] if isinstance(turn.content, str) else turn.content
        parts = [{"type": "text", "text": p.text} if isinstance(p, _Text) else {"type": "image"} for p in content]
        turns.append({"role": turn.role, "content": parts})
    return Prompt(turns, images)


def _urls(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """Yield the field and the URL of each image."""
    for k, turn in enumerate(request.messages):
        for j, part in enumerate(turn.content):
            if isinstance(part, _Image):
                yield f"messages.{k}.content.{j}", part.image_url.url


def _image(url: str, field: str, limits: ServerLimits, opened: Callable[[bytes, str, int], R]) -> R:
    """Open an image, or only its header, with one of the functions of `mllm.io.images`."""
    head = re.match("data:image/[a-z0-9.+-]+;base64,", url, re.IGNORECASE)
    if head is None:
        raise ApiError(400, f"{field}: images must be data:image/...;base64, URLs", param=field)
    try:
        return opened(base64.b64decode(url[head.end() :], validate=True), field, limits.pixels)
    except binascii.Error as error:
        raise ApiError(400, f"{field}: not base64: {error}", param=field) from None
    except ImageError as error:
        raise ApiError(400, str(error), param=field) from None


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion(model: str, text: str, finish: str, counts: dict[str, int]) -> dict[str, Any]:
    """Return a complete response."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return {**head(model, "chat.completion"), "choices": [choice], "usage": counts}


def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    """Return what a chunk has besides its `head`: the role, a piece of text, or the finish reason."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]}


def head(model: str, kind: str) -> dict[str, Any]:
    """Return the first fields of a response. All chunks of a stream share them."""
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}
