"""What a model found in an image: boxes in pixels, a summary, JSON, numbered boxes drawn on the image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from mllm.boxes import Box, Frame
from mllm.prompting import prompts
from mllm.prompting.questions import asks_for_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.inference.backends import Generation
    from mllm.records import Answer

TAG = re.compile(r"</?(?:think|answer)>")


@dataclass(frozen=True, slots=True)
class Grounding:
    """The answer of a model to a question about an image.

    name: what the boxes of the answer are called.
    question, prompt: the question, and the text that was sent to the model for it, in prompt style `style`.
    image, model: the RGB image, and the model's display name.
    parsed: thought, answer and boxes that were read from `generation`.
    candidates: boxes of the thought that the answer does not name, in the unit frame.
    seconds: time until the last token.
    """

    name: str
    question: str
    prompt: str
    style: str
    image: Image = field(repr=False)
    model: str
    parsed: Answer
    candidates: tuple[Box, ...]
    generation: Generation
    seconds: float

    @property
    def text(self) -> str:
        """The whole generated text."""
        return self.generation.text

    @property
    def thought(self) -> str | None:
        """The text inside the think tags."""
        return self.parsed.thought

    @property
    def answer(self) -> str | None:
        """The text inside the answer tags."""
        return self.parsed.answer

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of the answer in the unit frame; empty where it names none."""
        return self.parsed.boxes

    @property
    def box(self) -> Box | None:
        """The last box of the answer, which counts where one box was asked for."""
        return self.boxes[-1] if self.boxes else None

    @property
    def pixels(self) -> tuple[int, int, int, int] | None:
        """`box` as x1, y1, x2, y2 in pixels of the image."""
        return self._in_pixels(self.box) if self.box is not None else None

    @property
    def problem(self) -> str | None:
        """Why there is no box, or no name where one was asked for; None where there is one."""
        return "the model says that it is not in the image" if self.parsed.absent else self.parsed.problem

    @property
    def named(self) -> str | None:
        """The name that the model gives the thing, None where the question did not ask for one or it is unreadable."""
        asked = asks_for_name(self.question) and self.parsed.problem is None
        return (self.parsed.answer or "").strip() or None if asked else None

    @property
    def turn(self) -> tuple[str, str]:
        """Prompt and generated text, for the `history` of a later question."""
        return self.prompt, self.text

    @property
    def summary(self) -> str:
        """The outcome in one sentence."""
        if self.boxes:
            pixels = "; ".join(", ".join(map(str, self._in_pixels(box))) for box in self.boxes)
            return f"{'box' if len(self.boxes) == 1 else f'{len(self.boxes)} boxes'} in pixels: {pixels}"
        if self.named:
            return f"name: {self.named}"
        if self.parsed.absent:
            return f"no box for {self.name!r}: {self.problem}."
        hint = " The answer is truncated: raise max_new_tokens." if self.generation.truncated else ""
        if self.style == prompts.PLAIN:
            return f"answered in words, without a box.{hint}"
        missing = "no name" if asks_for_name(self.question) else f"no box for {self.name!r}"
        return f"{missing}: {self.problem}.{hint}"

    def draw(self) -> Image:
        """Return the image with the boxes of the answer drawn and labelled."""
        return draw_spots(self.image, number_spots([self])[0])

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the image as JSON values; boxes in pixels and in the unit frame."""
        width, height = self.image.size
        return {
            "model": self.model,
            "question": self.question,
            "asked": self.prompt,
            "style": self.style,
            "size": [width, height],
            "boxes": [{"name": self.name, **self._both(box)} for box in self.boxes],
            "candidates": [self._both(box) for box in self.candidates],
            "absent": self.parsed.absent,
            "name": self.named,
            "thought": self.thought,
            "answer": self.answer,
            "problem": self.problem,
            "truncated": self.generation.truncated,
            "tokens": self.generation.tokens,
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
    """A numbered box that a question can refer to as `#number`. `in_answer` is False for candidates of the thought."""

    number: int
    box: Box
    name: str
    in_answer: bool

    @property
    def label(self) -> str:
        """The text drawn beside the box."""
        name = self.name if len(self.name) <= 30 else f"{self.name[:29]}…"
        return f"#{self.number} {name}".rstrip()


def number_spots(groundings: Sequence[Grounding | None]) -> list[tuple[Spot, ...]]:
    """Number the boxes of several models in one image: those of each answer, then its candidates; None has none."""
    numbers, numbered = count(1), []
    for one in groundings:
        answered = [(box, one.name, True) for box in one.boxes] if one is not None else []
        candidates = [(box, "", False) for box in one.candidates] if one is not None else []
        numbered.append(tuple(Spot(next(numbers), *spot) for spot in [*answered, *candidates]))
    return numbered


def draw_spots(image: Image, marked: Sequence[Spot], *, candidates: bool = False) -> Image:
    """Draw numbered boxes on an image: those of answers solid, candidates of the thought dashed (if wanted)."""
    from mllm.io.drawing import CANDIDATE_COLOUR, DrawnBox, draw

    dashed = [DrawnBox(one.box, one.label, CANDIDATE_COLOUR, True) for one in marked if not one.in_answer]
    solid = [DrawnBox(one.box, one.label) for one in marked if one.in_answer]
    return draw(image, [*(dashed if candidates else ()), *solid])


def split_thought(text: str) -> tuple[str, str]:
    """Split a text, perhaps still growing, into its thought and the rest, without tags. For display only."""
    before, opened, after = text.partition("<think>")
    if not opened:
        return "", _without_tags(text)
    thought, _, rest = after.partition("</think>")
    return _without_tags(thought), _without_tags(before + rest)


def _without_tags(text: str) -> str:
    """Remove tags, including one at the end that is still incomplete."""
    return re.sub(r"</?[a-z]{0,6}$", "", TAG.sub("", text)).strip()
