"""One visitor's desk: images that were put on it, what was asked of which, what each model said. Knows no gradio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from mllm.errors import FieldmarkError
from mllm.inference.grounding import Grounding, Spot, drawn, numbered, unfold
from mllm.io.drawing import enlarge
from mllm.io.images import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.inference.assistant import Assistant

SIDE = 640
"""Longer side of a drawn image, pixels, at least."""
_REFRESH = 0.15
"""Seconds between two looks at what the models have written."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one visitor may bring, and how many may ask at once."""

    upload: int = 20 * 2**20
    """Bytes of a file."""
    pixels: int = 25_000_000
    """Pixels of an image."""
    images: int = 12
    """Images on a desk."""
    tokens: int = 2048
    """Tokens of an answer."""
    together: int = 4
    """Questions answered at the same time; others wait."""
    waiting: int = 32
    """Questions that may wait; more are turned away."""


@dataclass(eq=False)
class Picture:
    """An image on the desk. `marked` holds each model's numbered places, `said` each model's earlier turns."""

    name: str
    source: Path | Image
    marked: list[tuple[Spot, ...]]
    said: list[list[tuple[str, str]]]

    def open(self) -> Image:
        """Return the image itself."""
        return open_image(self.source) if isinstance(self.source, Path) else self.source

    @property
    def places(self) -> list[Spot]:
        """All numbered places, in the order of their numbers."""
        return [spot for marked in self.marked for spot in marked]


@dataclass(eq=False)
class Turn:
    """One question to one model: what has been written so far, and in the end the answer or an error."""

    image: str
    question: str
    text: str = ""
    told: str = ""
    seconds: float = 0.0
    answer: dict[str, Any] | None = None
    done: bool = False


@dataclass(eq=False)
class Desk:
    """Images, and a transcript for each of `models` models."""

    models: int
    images: list[Picture] = field(default_factory=list)
    at: int = 0
    turns: list[list[Turn]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = self.turns or [[] for _ in range(self.models)]

    def add(self, name: str, source: Path | Image, limits: Limits) -> None:
        """Put an image on the desk and look at it.

        Raises:
            FieldmarkError: the desk is full; the file is no image or too large.
        """
        if len(self.images) >= limits.images:
            raise FieldmarkError(f"{name}: the desk holds {limits.images} images; clear it first")
        if isinstance(source, Path):
            try:
                open_image(source, limits.pixels)
            except FieldmarkError as error:
                raise FieldmarkError(str(error).replace(str(source), name)) from None
        empty: list[tuple[Spot, ...]] = [() for _ in range(self.models)]
        self.images.append(Picture(name, source, empty, [[] for _ in range(self.models)]))
        self.at = len(self.images) - 1

    def clear(self) -> None:
        """Take everything off."""
        self.images, self.at, self.turns = [], 0, [[] for _ in range(self.models)]

    def stop(self) -> None:
        """Close turns that nobody waits for any more."""
        for turn in (turn for turns in self.turns for turn in turns if not turn.done):
            turn.done, turn.told = True, "stopped."

    def shown(self, model: int, *, candidates: bool) -> Image | None:
        """Return the image that is looked at with what `model` found drawn on it."""
        if not self.images:
            return None
        picture = self.images[self.at]
        return drawn(picture.open(), picture.marked[model], candidates=candidates)

    def spot_at(self, model: int, x: float, y: float) -> Spot | None:
        """Return the smallest place around a point of a drawn image, in its pixels."""
        if not self.images:
            return None
        picture = self.images[self.at]
        width, height = enlarge(picture.open(), SIDE).size
        x, y = x / width, y / height
        around = [
            one for one in picture.marked[model]
            if one.box.x1 <= x <= one.box.x2 and one.box.y1 <= y <= one.box.y2
        ]  # fmt: skip
        return min(around, key=lambda one: one.box.area, default=None)

    def messages(self, model: int) -> list[dict[str, Any]]:
        """Return a model's transcript as gradio's chatbot takes it: question, reasoning (folded), outcome."""
        talk: list[dict[str, Any]] = []
        for turn in self.turns[model]:
            where = f"{turn.image}: " if len(self.images) > 1 else ""
            talk.append({"role": "user", "content": where + turn.question})
            thought, rest = unfold(turn.text)
            if thought:
                over = turn.done or bool(rest)
                about: dict[str, Any] = {"title": "Reasoning", "status": "done" if over else "pending"}
                if turn.done and turn.seconds:
                    about["duration"] = turn.seconds
                talk.append({"role": "assistant", "content": thought, "metadata": about})
            if rest or turn.told or not thought:
                said = "\n".join(part for part in (rest, turn.told) if part)
                talk.append({"role": "assistant", "content": said or "…"})
        return talk

    async def ask(
        self, assistants: Sequence[Assistant], number: int, question: str, memory: int, **options: Any
    ) -> AsyncIterator[None]:
        """Put a question about image `number` to all models at once; yields while they write, and at the end.

        Whoever stops listening stops the models.
        """
        picture, gone = self.images[number], Event()
        turns = [Turn(picture.name, question) for _ in assistants]
        found: list[Grounding | None] = [None] * len(assistants)
        for mine, turn in zip(self.turns, turns, strict=True):
            mine.append(turn)
        image, about = picture.open(), [spot.box for spot in picture.places]

        def work(k: int) -> None:
            def tell(piece: str) -> None:
                turns[k].text += piece

            before = picture.said[k][-memory:] if memory else ()
            try:
                found[k] = assistants[k].ground(
                    image, question, about=about, before=before, tell=tell, gone=gone, **options
                )
            except FieldmarkError as error:
                turns[k].told = str(error)

        tasks = [asyncio.create_task(asyncio.to_thread(work, k)) for k in range(len(assistants))]
        try:
            while (await asyncio.wait(tasks, timeout=_REFRESH))[1]:
                yield
            for task in tasks:
                task.result()
        finally:
            gone.set()
        self._settle(picture, turns, found)
        yield

    def _settle(self, picture: Picture, turns: Sequence[Turn], found: Sequence[Grounding | None]) -> None:
        """Write down what came of a question; places stay as they were where no model named any."""
        places = numbered(found)
        if any(places):
            picture.marked = places
        for k, (turn, one) in enumerate(zip(turns, found, strict=True)):
            turn.done = True
            if one is None:
                continue
            picture.said[k].append(one.turn)
            turn.text, turn.seconds = one.text, one.seconds
            turn.told, turn.answer = told(one, places[k]), {"image": picture.name, **one.as_dict()}


def told(found: Grounding, marked: Sequence[Spot]) -> str:
    """Say how an answer went, for a page on which its places are drawn and numbered."""
    said = [spot for spot in marked if spot.said]
    cost = f"({found.seconds:.1f} s, {found.tokens} tokens)"
    if said:
        looked = [spot for spot in marked if not spot.said]
        more = f"; it looked at {', '.join(spot.label for spot in looked)}" if looked else ""
        return f"→ {', '.join(spot.label for spot in said)}{more} {cost}"
    return f"→ {found.told[0].upper()}{found.told[1:]} {cost}"
