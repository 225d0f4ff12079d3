"""A model behind an OpenAI-compatible server, used like a local checkpoint: images, boxes, streaming."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from mllm.boxes import Frame
from mllm.errors import FamilyError, FieldmarkError, RecordError
from mllm.inference.backends import Generation, OnText, Prompt
from mllm.inference.openai_errors import errors, reading, reason, received, short
from mllm.inference.openai_http import client
from mllm.inference.sampling import Sampling
from mllm.io import image_view
from mllm.io.codec import decode, encode
from mllm.models import families
from mllm.models.families import Convention

if TYPE_CHECKING:
    from PIL.Image import Image

CONVENTION_FIELD = "fieldmark"
"""Field of the model description in which `fieldmark serve` states the convention of its checkpoint."""
MAX_SENT_PIXELS = 4_000_000
"""Larger images are shrunk to this number of pixels before they are sent."""


class ServerBackend:
    """A model behind `fieldmark serve`, `vllm serve` or another server with OpenAI's chat completions.

    Args:
        address: ends in /v1; `#NAME` after it selects one of several models.
        family: how the model writes boxes; only for servers that do not state it.

    Raises:
        FieldmarkError: the server cannot be reached; it has several models and none was named; neither the server nor
            `family` says how the model writes boxes.
    """

    def __init__(self, address: str, *, family: str | None = None) -> None:
        self.url, _, wanted = address.partition("#")
        self._key = os.environ.get("OPENAI_API_KEY", "")
        self._client = client(self.url, self.url, self._key, timeout=300, longest=3600, retries=2)
        description = self._describe(wanted)
        self.model: str = description["id"]
        self.name = f"{self.model} at {self.url}"
        self.convention = _convention(description, self.name, family)
        self.family = families.load(self.convention.family)

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText | None = None, cancelled: Event | None = None
    ) -> Generation:
        """Answer a prompt; see `Backend.generate`. A server that fails raises `FieldmarkError`."""
        pieces = _Pieces(on_text)
        try:
            stream = self._client.chat.completions.create(
                model=self.model,
                messages=self._to_openai(prompt.messages, prompt.images),
                stream=True,
                stream_options={"include_usage": True},
                max_tokens=sampling.limit,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=sampling.seed,
            )
            with stream:
                for chunk in received(stream):
                    pieces.add(chunk)
                    if cancelled is not None and cancelled.is_set():
                        break
        except errors() as error:
            raise FieldmarkError(f"{self.name}: {reason(error)} ({short(error, self._key)})") from None
        return Generation(pieces.text, pieces.tokens, pieces.finish == "length")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _describe(self, wanted: str) -> dict[str, Any]:
        try:
            with reading():
                models = [model.model_dump() for model in self._client.models.list()]
        except errors() as error:
            raise FieldmarkError(
                f"{self.url}: {reason(error)} ({short(error, self._key)}); the address of a server ends in /v1, "
                "its key comes from OPENAI_API_KEY"
            ) from None
        names = [model["id"] for model in models]
        if wanted and wanted not in names:
            raise FieldmarkError(f"{self.url}: no model {wanted!r}; the server has {', '.join(names) or 'none'}")
        if not wanted and len(names) != 1:
            known = ", ".join(names) or "none"
            raise FieldmarkError(f"{self.url}: select one of its models with {self.url}#NAME: {known}")
        return models[names.index(wanted or names[0])]

    def _to_openai(self, messages: list[dict[str, Any]], images: Sequence[Image]) -> list[Any]:
        sent = ({"type": "image_url", "image_url": {"url": self._url(image)}} for image in images)
        contents = ([one if one["type"] == "text" else next(sent) for one in turn["content"]] for turn in messages)
        return [{**turn, "content": content} for turn, content in zip(messages, contents, strict=True)]

    def _url(self, image: Image) -> str:
        """Return an image as data URL. A family that writes pixels of the resized image gets it already resized."""
        if self.family.numbers is None:
            frame = self.family.resized(Frame(*image.size), self.convention.budget)
            image = image.resize((int(frame.width), int(frame.height)))
        elif image.width * image.height > MAX_SENT_PIXELS:
            scale = (MAX_SENT_PIXELS / (image.width * image.height)) ** 0.5
            image = image.resize((max(int(image.width * scale), 1), max(int(image.height * scale), 1)))
        return image_view.data_url(image, lossless=image.width * image.height <= image_view.LOSSLESS)


class _Pieces:
    """Collects a streamed answer. Reasoning in a field of its own (`reasoning_content`) is put back into `<think>`."""

    def __init__(self, on_text: OnText | None) -> None:
        self.text, self.finish, self.tokens = "", "", 0
        self._on_text, self._thinking = on_text, False

    def add(self, chunk: Any) -> None:
        """Add one chunk."""
        if chunk.usage is not None:
            self.tokens = chunk.usage.completion_tokens
        for choice in chunk.choices[:1]:
            extra = choice.delta.model_extra or {}
            if thought := extra.get("reasoning_content") or extra.get("reasoning"):
                self._append(thought if self._thinking else f"<think>{thought}")
                self._thinking = True
            if choice.delta.content:
                self._append(f"</think>{choice.delta.content}" if self._thinking else choice.delta.content)
                self._thinking = False
            self.finish = choice.finish_reason or self.finish

    def _append(self, text: str) -> None:
        self.text += text
        if self._on_text is not None:
            self._on_text(text)


def convention_field(convention: Convention) -> dict[str, Any]:
    """Return a convention as a field of a model description."""
    return {CONVENTION_FIELD: json.loads(encode(convention))}


def _convention(description: dict[str, Any], name: str, family: str | None) -> Convention:
    if family is not None:
        families.load(family)  # a mistyped name is an error, also where the server states its own
    if isinstance(stated := description.get(CONVENTION_FIELD), dict):
        try:
            return decode(json.dumps(stated), Convention)
        except RecordError as error:
            raise FamilyError(f"{name}: field {CONVENTION_FIELD} of its description: {error}") from None
    if family is None:
        raise FamilyError(
            f"{name}: the server does not say how its model writes boxes; give --family ({', '.join(families.names())})"
        )
    return Convention(family, "direct", families.load(family).budget)
