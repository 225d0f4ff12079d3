"""What a model said about an image: boxes in pixels, an outcome in one sentence, json, numbered places drawn on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mllm.boxes import Box, Frame
from mllm.prompting import styles

if TYPE_CHECKING:
    from PIL.Image import Image

_TAG = re.compile(r"</?(?:think|answer)>")


@dataclass(frozen=True, slots=True)
class Grounding:
    """What the model said. `boxes` is empty where the answer names none; `problem` says why it could not be read.

    `asked` is the whole text of the question as the model got it. `candidates` are the boxes that the thought looks
    at, those of the answer left out. `seconds` is the time to the last word.
    """

    name: str
    question: str
    asked: str
    style: str
    boxes: tuple[Box, ...]
    candidates: tuple[Box, ...]
    thought: str | None
    answer: str | None
    text: str
    problem: str | None
    absent: bool
    truncated: bool
    tokens: int
    seconds: float
    model: str
    image: Image = field(repr=False)

    @property
    def box(self) -> Box | None:
        """The one box that counts where one was asked for: the last of the answer."""
        return self.boxes[-1] if self.boxes else None

    @property
    def pixels(self) -> tuple[int, int, int, int] | None:
        """The box as x1, y1, x2, y2 in the image's own pixels."""
        return self._in_pixels(self.box) if self.box is not None else None

    @property
    def turn(self) -> tuple[str, str]:
        """The question as the model got it and what it wrote, for the memory of a later question."""
        return self.asked, self.text

    @property
    def told(self) -> str:
        """The outcome in one sentence, for people."""
        if self.boxes:
            where = "; ".join(", ".join(map(str, self._in_pixels(box))) for box in self.boxes)
            return f"{'box' if len(self.boxes) == 1 else f'{len(self.boxes)} boxes'} in pixels: {where}"
        if self.absent:
            return f"no box for {self.name!r}: the model says that it is not in the image."
        cut = " It ran out of room: raise max_new_tokens." if self.truncated else ""
        if self.style == styles.PLAIN:
            return f"answered in words, without a box.{cut}"
        return f"no box for {self.name!r}: {self.problem}.{cut}"

    def draw(self) -> Image:
        """Return the image with what was found drawn and named; the bare image where there is nothing."""
        return drawn(self.image, spots(self))

    def as_dict(self) -> dict[str, Any]:
        """Return all but the image as json values; boxes in pixels and in the unit frame."""
        width, height = self.image.size
        return {
            "model": self.model,
            "question": self.question,
            "asked": self.asked,
            "style": self.style,
            "size": [width, height],
            "boxes": [{"name": self.name, **self._both(box)} for box in self.boxes],
            "candidates": [self._both(box) for box in self.candidates],
            "absent": self.absent,
            "thought": self.thought,
            "answer": self.answer,
            "problem": self.problem,
            "truncated": self.truncated,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "text": self.text,
        }

    def _in_pixels(self, box: Box) -> tuple[int, int, int, int]:
        x1, y1, x2, y2 = (round(number) for number in box.to_xyxy(Frame(*self.image.size)))
        return x1, y1, x2, y2

    def _both(self, box: Box) -> dict[str, Any]:
        unit = [round(number, 5) for number in (box.x1, box.y1, box.x2, box.y2)]
        return {"pixels": list(self._in_pixels(box)), "unit": unit}


@dataclass(frozen=True, slots=True)
class Spot:
    """A numbered place in an image that can be asked about: `#2` in a question. `said`: an answer names it."""

    number: int
    box: Box
    name: str
    said: bool

    @property
    def label(self) -> str:
        """What is written beside it."""
        name = self.name if len(self.name) <= 30 else f"{self.name[:29]}…"
        return f"#{self.number} {name}".rstrip()


def spots(found: Grounding, first: int = 1) -> tuple[Spot, ...]:
    """Number what was found, from `first` on: the answer's boxes, then the candidates of the thought."""
    said = [(box, found.name, True) for box in found.boxes]
    looked = [(box, "", False) for box in found.candidates]
    return tuple(Spot(first + k, *one) for k, one in enumerate([*said, *looked]))


def numbered(found: Sequence[Grounding | None]) -> list[tuple[Spot, ...]]:
    """Number what several models found in one image, one after the other; None is a model that gave no answer."""
    places: list[tuple[Spot, ...]] = []
    for one in found:
        places.append(spots(one, 1 + sum(map(len, places))) if one is not None else ())
    return places


def drawn(image: Image, marked: Sequence[Spot], *, candidates: bool = False) -> Image:
    """Draw numbered places on an image: answers solid, candidates of the thought (where wanted) dashed."""
    from mllm.io.drawing import CANDIDATE_COLOUR, Mark, draw

    looked = [Mark(one.box, one.label, CANDIDATE_COLOUR, True) for one in marked if not one.said and candidates]
    return draw(image, [*looked, *(Mark(one.box, one.label) for one in marked if one.said)])


def unfold(text: str) -> tuple[str, str]:
    """Split a text, perhaps still growing, into its thought and the rest, tags left out. For showing, not scoring."""
    before, opened, behind = text.partition("<think>")
    if not opened:
        return "", _shown(text)
    thought, _, rest = behind.partition("</think>")
    return _shown(thought), _shown(before + rest)


def _shown(text: str) -> str:
    """Leave tags out, one that is still being written at the end too."""
    return re.sub(r"</?[a-z]{0,6}$", "", _TAG.sub("", text)).strip()
