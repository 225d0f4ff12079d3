"""A model behind an OpenAI-compatible server, asked as a checkpoint of this process is: images, boxes, streaming."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mllm.boxes import Frame
from mllm.errors import FamilyError, FieldmarkError, RecordError
from mllm.inference import openai_errors
from mllm.inference.backends import ROOM, Request, Tell
from mllm.inference.batched import Written
from mllm.io import image_view
from mllm.io.codec import decode, encode
from mllm.models import families
from mllm.models.families import Convention

if TYPE_CHECKING:
    from PIL.Image import Image

CONVENTION_FIELD = "fieldmark"
"""Field of a model's description by which `fieldmark serve` says how its checkpoint was trained to be asked."""
MOST_PIXELS = 4_000_000
"""Larger images are shrunk to so many pixels before they are sent."""


class Endpoint:
    """A model behind `fieldmark serve`, `vllm serve` or any other server that speaks OpenAI's chat completions.

    Args:
        address: ends in /v1; `#NAME` after it chooses among several models.
        family: how the model writes boxes; only for servers that do not say so themselves.
        style: prompt style, where the server does not say it.

    Raises:
        FieldmarkError: the server cannot be reached, has several models and none was named, or does not say how its
            model writes boxes and neither does `family`.
    """

    def __init__(self, address: str, *, family: str | None = None, style: str | None = None) -> None:
        self.url, _, wanted = address.partition("#")
        self._client = _client(self.url)
        told = self._described(wanted)
        self.model: str = told["id"]
        self.name = f"{self.model} at {self.url}"
        self.convention = _convention(told, self.name, family, style)
        self.family = families.load(self.convention.family)

    def write(self, request: Request) -> Written:
        """Answer a conversation, see `Writer.write`. A server that fails raises `FieldmarkError`."""
        body = {"max_tokens": request.room or ROOM, "temperature": request.temperature, "seed": request.seed}
        pieces = _Pieces(request.tell)
        try:
            stream = self._client.chat.completions.create(
                model=self.model,
                messages=self._as_sent(request.messages, request.images),
                stream=True,
                stream_options={"include_usage": True},
                **body,
            )
            with stream:
                for chunk in stream:
                    pieces.take(chunk)
                    if request.gone is not None and request.gone.is_set():
                        break
        except openai_errors.errors() as error:
            raise FieldmarkError(f"{self.name}: {openai_errors.reason(error)} ({openai_errors.short(error)})") from None
        return pieces.written()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _described(self, wanted: str) -> dict[str, Any]:
        """Return what the server tells of its model."""
        try:
            models = [model.model_dump() for model in self._client.models.list()]
        except openai_errors.errors() as error:
            raise FieldmarkError(
                f"{self.url}: {openai_errors.reason(error)} ({openai_errors.short(error)}); the address of a server ends in /v1, "
                "its key comes from OPENAI_API_KEY"
            ) from None
        names = [model["id"] for model in models]
        if wanted and wanted not in names:
            raise FieldmarkError(f"{self.url}: no model {wanted!r} there; it has {', '.join(names) or 'none'}")
        if not wanted and len(names) != 1:
            raise FieldmarkError(
                f"{self.url}: name one of its models, as {self.url}#NAME: {', '.join(names) or 'none'}"
            )
        return models[names.index(wanted or names[0])]

    def _as_sent(self, messages: list[dict[str, Any]], images: Sequence[Image]) -> list[Any]:
        """Return the turns as the wire has them, each image as a data URL."""
        left = iter(images)

        def part(one: dict[str, Any]) -> dict[str, Any]:
            return one if one["type"] == "text" else {"type": "image_url", "image_url": {"url": self._url(next(left))}}

        return [{**turn, "content": [part(one) for one in turn["content"]]} for turn in messages]

    def _url(self, image: Image) -> str:
        """Return an image as data URL, on the very pixels that its boxes will be written on, where these count."""
        if self.family.numbers is None:
            frame = self.family.resized(Frame(*image.size), self.convention.budget)
            image = image.resize((int(frame.width), int(frame.height)))
        elif image.width * image.height > MOST_PIXELS:
            scale = (MOST_PIXELS / (image.width * image.height)) ** 0.5
            image = image.resize((max(int(image.width * scale), 1), max(int(image.height * scale), 1)))
        return image_view.data_url(image, lossless=image.width * image.height <= image_view.LOSSLESS)


class _Pieces:
    """Gathers a streamed answer. Thoughts that a server sends apart (`reasoning_content`) go back into `<think>`."""

    def __init__(self, tell: Tell | None) -> None:
        self.text, self.finish, self.tokens = "", "", 0
        self._tell, self._thinking = tell, False

    def take(self, chunk: Any) -> None:
        """Add one chunk."""
        if chunk.usage is not None:
            self.tokens = chunk.usage.completion_tokens
        for choice in chunk.choices[:1]:
            apart = choice.delta.model_extra or {}
            if thought := apart.get("reasoning_content") or apart.get("reasoning"):
                self._add(thought if self._thinking else f"<think>{thought}")
                self._thinking = True
            if choice.delta.content:
                self._add(f"</think>{choice.delta.content}" if self._thinking else choice.delta.content)
                self._thinking = False
            self.finish = choice.finish_reason or self.finish

    def written(self) -> Written:
        """Return the whole answer."""
        return Written(self.text, self.tokens, self.finish == "length")

    def _add(self, text: str) -> None:
        self.text += text
        if self._tell is not None:
            self._tell(text)


def described(convention: Convention) -> dict[str, Any]:
    """Return a convention as a server tells it."""
    return {CONVENTION_FIELD: json.loads(encode(convention))}


def _convention(told: dict[str, Any], name: str, family: str | None, style: str | None) -> Convention:
    """Return how a served model is asked and read: by its own description, else by what the caller knows."""
    if isinstance(said := told.get(CONVENTION_FIELD), dict):
        try:
            return decode(json.dumps(said), Convention)
        except RecordError as error:
            raise FamilyError(f"{name}: field {CONVENTION_FIELD} of its description: {error}") from None
    if family is None:
        raise FamilyError(
            f"{name}: the server does not say how its model writes boxes; name its --family "
            f"({', '.join(families.names())})"
        )
    return Convention(family, style or "direct", families.load(family).budget)


def _client(url: str) -> Any:
    """Return the official client."""
    try:
        from openai import OpenAI
    except ImportError as error:
        raise FieldmarkError(f"{url}: {error}; install it with: pip install 'fieldmark[openai]'") from None
    return OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "none", timeout=300)
