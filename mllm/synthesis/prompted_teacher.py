"""A teacher that is a model: every ability as a question in words, put to whatever can write a reply.

The two teachers of this kind, `openai` and `local`, differ only in how a reply comes about (`_write`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from mllm.boxes import Box, Frame
from mllm.config import Section
from mllm.errors import FamilyError, FieldmarkError
from mllm.io.image_view import ImageView
from mllm.models.families import Budget, Family
from mllm.synthesis import teacher_parsing, teacher_prompts
from mllm.synthesis.capabilities import Look, Reasoning, TeacherError
from mllm.synthesis.usage import Failure, Ledger, Report

T = TypeVar("T")
MARGIN = 0.08
"""A thing is shown with so much of its box's sides around it: a mark at the edge is else cut off."""


class Asking(Section):
    """Settings that both kinds of model share. Each changes what comes out."""

    temperature: float = Field(default=0.7, ge=0)
    """Of reasoning, and of any call with a seed other than 0; judgements and first opinions are greedy."""
    max_tokens: int = Field(default=1024, ge=1)
    """Room for a reply; one that is cut off counts as failed."""
    max_pixels: int = Field(default=1024 * 1024, ge=1024)
    """Images are shrunk to at most so many pixels before they are shown."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: `what` names it in a list of failures, `text` is all that is said, `views` are shown before it."""

    what: str
    text: str
    views: tuple[ImageView, ...]
    temperature: float
    seed: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `truncated`: it ran out of room. Tokens are None where they were not counted."""

    text: str
    truncated: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None


class ModelTeacher(ABC):
    """All abilities of `mllm.synthesis.capabilities`, in words."""

    def __init__(self, family: Family, budget: Budget, asking: Asking, ledger: Ledger) -> None:
        """Take how the model sees and writes boxes. Its `budget` must hold what it is shown, or frames would differ."""
        self._family, self._budget, self._asking, self._ledger = family, budget, asking, ledger
        self._max_pixels = min(asking.max_pixels, budget.max_pixels)

    @abstractmethod
    def _write(self, ask: Ask) -> Reply:
        """Get one reply. Raises TeacherError, noted in the ledger, where this one request failed."""

    def reason(self, request: Reasoning) -> str:
        """Write one thought; the teacher knows names, boxes, cards and the answer, and looks where it has an image."""
        sample = request.sample
        answers = [k for k, thing in enumerate(sample.things) if thing.entity == sample.entity]
        if len(answers) != 1:
            raise FieldmarkError(f"sample {sample.id}: {len(answers)} things are {sample.entity!r}; one is needed")
        view = None if request.image is None else ImageView(request.image, self._max_pixels)
        frame = self._frame(sample.size if view is None else view.size)
        ask = Ask(
            f"reasoning for sample {sample.id}",
            teacher_prompts.reasoning(request, answers[0], self._family, frame),
            () if view is None else (view,),
            self._asking.temperature,
            _seed(request.seed, sample.id),
            self._asking.max_tokens,
        )
        return self._ask(ask, lambda text: teacher_parsing.thought(text, sample, frame))

    def marks(self, entity: str, domain: str) -> tuple[str, ...]:
        """Return the field marks of an entity, most telling first; empty when the model knows none."""
        return self._ask(
            self._question(f"marks of {entity}", teacher_prompts.marks(entity, domain)), teacher_parsing.marks
        )

    def differences(self, entity: str, other: str, domain: str) -> tuple[tuple[str, str], ...]:
        """Return what tells two entities apart, as pairs; empty when the model knows nothing."""
        ask = self._question(f"{entity} beside {other}", teacher_prompts.differences(entity, other, domain))
        return self._ask(ask, lambda text: teacher_parsing.differences(text, entity, other))

    def sees(self, look: Look, marks: Sequence[str]) -> tuple[bool | None, ...]:
        """Say of each mark whether it is visible; None where it cannot be told."""
        if not marks:
            return ()
        ask = self._question(
            f"marks on {_place(look)}", teacher_prompts.sees(look.domain, marks), self._view(look, MARGIN)
        )
        return self._ask(ask, lambda text: teacher_parsing.verdicts(text, len(marks)))

    def describe(self, look: Look, *, seed: int = 0) -> str:
        """Describe what is there in one to three sentences."""
        view = self._view(look, MARGIN)
        return self._ask(
            self._question(f"description of {_place(look)}", teacher_prompts.describe(look.domain), view, seed),
            teacher_parsing.prose,
        )

    def point(self, look: Look, entity: str, *, seed: int = 0) -> tuple[Box, ...]:
        """Return the boxes of an entity in the unit frame of the whole image; with `look.box` only inside of it."""
        view = self._view(look, 0.0)
        frame = self._frame(view.size)
        text = teacher_prompts.point(entity, look.domain, frame)
        ask = self._question(f"{entity} in {_place(look)}", text, view, seed)
        found = self._ask(ask, lambda said: teacher_parsing.boxes(said, self._family, frame))
        return found if look.box is None else tuple(box.inside(view.window) for box in found)

    def blend(self, captions: Sequence[str], *, seed: int = 0) -> str:
        """Merge captions of one image into one."""
        if not captions:
            raise FieldmarkError("blend needs at least one caption")
        return self._ask(
            self._question(f"blend of {captions[0][:40]!r}", teacher_prompts.blend(captions), seed=seed),
            teacher_parsing.prose,
        )

    def expand(self, caption: str, description: str, *, seed: int = 0) -> str:
        """Add details of a description to a caption."""
        ask = self._question(f"expansion of {caption[:40]!r}", teacher_prompts.expand(caption, description), seed=seed)
        return self._ask(ask, teacher_parsing.prose)

    def report(self) -> Report:
        """Return the tally so far."""
        return self._ledger.report()

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and threads; the report stays."""

    def _question(self, what: str, text: str, view: ImageView | None = None, seed: int = 0) -> Ask:
        """Word a judgement or first opinion (seed 0: greedy) or another opinion (sampled)."""
        temperature = self._asking.temperature if seed else 0.0
        return Ask(what, text, () if view is None else (view,), temperature, seed, self._asking.max_tokens)

    def _ask(self, ask: Ask, read: Callable[[str], T]) -> T:
        """Get a reply and read it; one that cannot be read is noted as a failure."""
        reply = self._write(ask)
        try:
            if reply.truncated:
                raise TeacherError("reply cut off", f"{ask.max_tokens} tokens were no room; raise max_tokens")
            return read(reply.text)
        except TeacherError as error:
            self._ledger.failed(Failure(ask.what, error.reason, error.detail, 1))
            raise

    def _view(self, look: Look, margin: float) -> ImageView:
        box = look.box
        if box is not None and margin:
            x, y = margin * box.width, margin * box.height
            box = Box(max(box.x1 - x, 0), max(box.y1 - y, 0), min(box.x2 + x, 1), min(box.y2 + y, 1))
        return ImageView(look.image, self._max_pixels, box)

    def _frame(self, size: Frame) -> Frame:
        """Return the frame the model writes on when it is shown an image of `size`."""
        try:
            return self._family.frame(size, self._budget)
        except FamilyError as error:
            raise TeacherError("image cannot be shown", str(error)) from None


def _place(look: Look) -> str:
    """Name a look in a list of failures."""
    part = "" if look.box is None else " at " + ",".join(f"{side:.3f}" for side in look.box.to_xyxy(Frame(1, 1)))
    return f"{Path(look.image).name}{part}"


def _seed(seed: int, name: str) -> int:
    """Return a seed of the sample's own, 31 bits (servers take no more), the same on every day."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1
