"""One visitor's session: the images, the questions about them, and the answers of each model. Independent of gradio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from mllm.errors import FieldmarkError
from mllm.inference.grounding import Grounding, Spot, draw_spots, number_spots, split_thought
from mllm.io.drawing import enlarge
from mllm.io.images import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.inference.assistant import Assistant

SIDE = 640
"""Minimum longer side of a drawn image, in pixels."""


@dataclass(frozen=True, slots=True)
class WebLimits:
    """Limits of one visitor, and of concurrent questions."""

    upload: int = 20 * 2**20  # bytes of a file
    pixels: int = 25_000_000  # of an image
    images: int = 12  # in a session
    tokens: int = 2048  # of an answer
    together: int = 4  # questions answered at the same time; further ones wait
    waiting: int = 32  # questions that may wait; further ones are refused

    def largest(self, path: str) -> int:
        """Return the most bytes of a request to `path`: some uploads, or what else the page sends."""
        return (self.images * self.upload if path.endswith("/upload") else 0) + 2**20


@dataclass(eq=False)
class SessionImage:
    """An image of a session, with the numbered boxes (`spots`) and the earlier turns (`history`) of each model."""

    name: str
    source: Path | Image
    spots: list[tuple[Spot, ...]]
    history: list[list[tuple[str, str]]]

    def open(self) -> Image:
        """Return the image itself."""
        return open_image(self.source) if isinstance(self.source, Path) else self.source


@dataclass(eq=False)
class Turn:
    """One question to one model: the text so far, and in the end its outcome: a summary or an error."""

    image: str
    question: str
    text: str = ""
    outcome: str = ""
    seconds: float = 0.0
    answer: dict[str, Any] | None = None
    done: bool = False


@dataclass(eq=False)
class Session:
    """Images, and a transcript for each of `models` models. `current` is the index of the image on display."""

    models: int
    images: list[SessionImage] = field(default_factory=list)
    current: int = 0
    turns: list[list[Turn]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = self.turns or [[] for _ in range(self.models)]

    def add(self, name: str, source: Path | Image, limits: WebLimits) -> None:
        """Add an image and display it.

        Raises FieldmarkError: too many images; the file is not an image or too large.
        """
        if len(self.images) >= limits.images:
            raise FieldmarkError(f"{name}: a session holds {limits.images} images; remove them first")
        if isinstance(source, Path):
            try:
                open_image(source, limits.pixels)
            except FieldmarkError as error:
                raise FieldmarkError(str(error).replace(str(source), name)) from None
        empty: list[tuple[Spot, ...]] = [() for _ in range(self.models)]
        self.images.append(SessionImage(name, source, empty, [[] for _ in range(self.models)]))
        self.current = len(self.images) - 1

    def forget_expired(self) -> list[str]:
        """Remove images whose file is gone (gradio deletes uploads after an hour) and return their names."""
        gone = [one for one in self.images if isinstance(one.source, Path) and not one.source.is_file()]
        if gone:
            shown = self.images[self.current]
            self.images = [one for one in self.images if one not in gone]
            self.current = self.images.index(shown) if shown in self.images else max(len(self.images) - 1, 0)
        return [one.name for one in gone]

    def clear(self) -> None:
        """Remove all images and transcripts."""
        self.images, self.current, self.turns = [], 0, [[] for _ in range(self.models)]

    def stop(self) -> None:
        """Mark unfinished turns as stopped."""
        for turn in (turn for turns in self.turns for turn in turns if not turn.done):
            turn.done, turn.outcome = True, "stopped."

    def drawn(self, model: int, *, candidates: bool) -> Image | None:
        """Return the current image with the boxes of `model`; None without an image."""
        if not self.images:
            return None
        image = self.images[self.current]
        return draw_spots(image.open(), image.spots[model], candidates=candidates)

    def spot_at(self, model: int, x: float, y: float) -> Spot | None:
        """Return the smallest box around a point, given in pixels of the drawn image."""
        if not self.images:
            return None
        image = self.images[self.current]
        width, height = enlarge(image.open(), SIDE).size
        x, y = x / width, y / height
        boxes = [spot for spot in image.spots[model] if spot.box.x1 <= x <= spot.box.x2]
        around = [spot for spot in boxes if spot.box.y1 <= y <= spot.box.y2]
        return min(around, key=lambda spot: spot.box.area, default=None)

    def messages(self, model: int) -> list[dict[str, Any]]:
        """Return a model's transcript as gradio's chatbot takes it: question, reasoning (folded), answer."""
        messages: list[dict[str, Any]] = []
        for turn in self.turns[model]:
            prefix = f"{turn.image}: " if len(self.images) > 1 else ""
            messages.append({"role": "user", "content": prefix + turn.question})
            thought, rest = split_thought(turn.text)
            if thought:
                status = "done" if turn.done or rest else "pending"
                metadata: dict[str, Any] = {"title": "Reasoning", "status": status}
                if turn.done and turn.seconds:
                    metadata["duration"] = turn.seconds
                messages.append({"role": "assistant", "content": thought, "metadata": metadata})
            if rest or turn.outcome or not thought:
                content = "\n".join(part for part in (rest, turn.outcome) if part)
                messages.append({"role": "assistant", "content": content or "…"})
        return messages

    async def ask(
        self, assistants: Sequence[Assistant], number: int, question: str, memory: int, **options: Any
    ) -> AsyncIterator[None]:
        """Ask all models about image `number` at once; yields repeatedly while they generate, and at the end.

        Closing the iterator cancels the models. `memory` is the number of earlier turns to send along.
        """
        image, cancelled = self.images[number], Event()
        turns = [Turn(image.name, question) for _ in assistants]
        found: list[Grounding | None] = [None] * len(assistants)
        for transcript, turn in zip(self.turns, turns, strict=True):
            transcript.append(turn)
        opened, about = image.open(), [spot.box for spots in image.spots for spot in spots]

        def work(k: int) -> None:
            def on_text(piece: str) -> None:
                turns[k].text += piece

            history = image.history[k][-memory:] if memory else ()
            try:
                found[k] = assistants[k].ground(
                    opened, question, about=about, history=history, on_text=on_text, cancelled=cancelled, **options
                )
            except FieldmarkError as error:
                turns[k].outcome = str(error)

        tasks = [asyncio.create_task(asyncio.to_thread(work, k)) for k in range(len(assistants))]
        try:
            while (await asyncio.wait(tasks, timeout=0.15))[1]:
                yield
            for task in tasks:
                task.result()
        finally:
            cancelled.set()
        self._finish(image, turns, found)
        yield

    def _finish(self, image: SessionImage, turns: Sequence[Turn], found: Sequence[Grounding | None]) -> None:
        """Record the answers. Where no model named a box, the boxes of earlier answers stay."""
        spots = number_spots(found)
        if any(spots):
            image.spots = spots
        for k, (turn, one) in enumerate(zip(turns, found, strict=True)):
            turn.done = True
            if one is None:
                continue
            image.history[k].append(one.turn)
            turn.text, turn.seconds = one.text, one.seconds
            turn.outcome, turn.answer = summary(one, spots[k]), {"image": image.name, **one.as_dict()}


def summary(found: Grounding, spots: Sequence[Spot]) -> str:
    """Summarise an answer for a page on which its boxes are drawn and numbered."""
    answered = [spot.label for spot in spots if spot.in_answer]
    candidates = [spot.label for spot in spots if not spot.in_answer]
    cost = f"({found.seconds:.1f} s, {found.generation.tokens} tokens)"
    if not answered:
        return f"→ {found.summary[0].upper()}{found.summary[1:]} {cost}"
    considered = f"; it considered {', '.join(candidates)}" if candidates else ""
    return f"→ {', '.join(answered)}{considered} {cost}"
