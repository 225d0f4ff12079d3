"""Whoever writes an answer: a checkpoint in this process, or a model behind a server (`mllm.inference.openai_client`).

Both take the same conversation and tell each piece of text while it is written; `mllm.inference.assistant` sits on top of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mllm.inference.batched import Job, Written, prepare, write
from mllm.models import processors
from mllm.models.families import Convention, Family
from mllm.prompting import answers, styles

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.models.checkpoint import Loaded

Tell = Callable[[str], None]
ROOM = 1024
"""Tokens of an answer, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation to be answered.

    messages: turns as chat templates take them (`mllm.prompting.prompts.messages`), a part of type image per image.
    images: RGB images in the order of those parts.
    room: tokens of the answer at most; None is `ROOM`, or what the model has left.
    temperature: 0 is greedy.
    seed: of the sampling.
    tell: gets each piece of text.
    gone: once it is set nobody waits for the answer any more; it ends early.
    style: prompt style of the question; a thought that the chat template opens belongs to an answer of style `think`.
    """

    messages: list[dict[str, Any]]
    images: Sequence[Image]
    room: int | None = None
    temperature: float = 0.0
    seed: int = 0
    tell: Tell | None = None
    gone: threading.Event | None = None
    style: str = styles.PLAIN


class Writer(Protocol):
    """What answers: its name for people, how it writes boxes, how it was trained to be asked."""

    name: str
    family: Family
    convention: Convention

    def write(self, request: Request) -> Written:
        """Answer a conversation."""
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...


class Local:
    """A loaded checkpoint. With `batch` above 1, questions of several threads are answered together."""

    def __init__(self, loaded: Loaded, name: str, *, batch: int = 1) -> None:
        from mllm.inference.batcher import Gatherer

        self.loaded, self.name = loaded, name
        self.family, self.convention = loaded.family, loaded.convention
        self._gatherer: Gatherer[Job, Written] | None = None
        if batch > 1:
            self._gatherer = Gatherer(partial(write, loaded), most=batch)

    def write(self, request: Request) -> Written:
        """Answer a conversation, see `Writer.write`."""
        settings = {"temperature": request.temperature, "seed": request.seed, "tell": request.tell}
        settings["gone"] = request.gone or threading.Event()
        opening = processors.opened(self.loaded.processor, request.style)
        if opening and request.tell is not None:
            request.tell(opening)
        job = prepare(self.loaded, request.messages, request.images, max_new_tokens=request.room or 1, **settings)
        if request.room is None:
            has = getattr(self.loaded.model.config.get_text_config(), "max_position_embeddings", None)
            job = Job(job.inputs, ROOM if has is None else min(ROOM, has - job.tokens), **settings)
        written = self._gatherer(job) if self._gatherer is not None else write(self.loaded, [job])[0]
        return replace(written, text=answers.whole(opening, written.text))

    def close(self) -> None:
        """Finish what is queued."""
        if self._gatherer is not None:
            self._gatherer.close()
