"""Base class of teachers that are prompted models: every capability as a prompt and a parsed reply.

The two teachers of this kind, `openai` and `local`, differ only in how they generate a reply (`_generate`).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from mllm.boxes import Box, Frame
from mllm.config import Section
from mllm.errors import FamilyError, FieldmarkError
from mllm.io.codec import is_utf8
from mllm.io.image_view import ImageView
from mllm.models.families import Budget, Family
from mllm.synthesis import teacher_parsing
from mllm.synthesis import teacher_prompts as prompts
from mllm.synthesis.capabilities import Look, ReasoningRequest, TeacherError
from mllm.synthesis.thoughts import targets
from mllm.synthesis.usage import Failure, Usage, UsageReport

T = TypeVar("T")
MARGIN = 0.08
"""Context around the crop of a thing, as a share of its box's sides, so that marks at the edge stay visible."""


class SamplingConfig(Section):
    """Settings that both kinds of model share. Each changes the output."""

    temperature: float = Field(default=0.7, ge=0)
    """Of reasoning and of calls with a seed other than 0; judgements and first opinions are greedy."""
    max_tokens: int = Field(default=1024, ge=1)
    """Maximum tokens of a reply; a truncated reply counts as failed."""
    max_pixels: int = Field(default=1024 * 1024, ge=1024)
    """Images with more pixels than this are scaled down."""


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One prompt. `what` names it in a list of failures; `views` are the images, shown before `text`."""

    what: str
    text: str
    views: tuple[ImageView, ...]
    temperature: float
    seed: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class TeacherReply:
    """A generated reply. `truncated`: it reached `max_tokens`. Token counts are None where they are unknown."""

    text: str
    truncated: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None


class PromptedTeacher(ABC):
    """All capabilities of `mllm.synthesis.capabilities`, by prompting."""

    def __init__(self, family: Family, budget: Budget, sampling: SamplingConfig, usage: Usage) -> None:
        """Prompt a model of a family; images are scaled to fit `budget`, so that boxes refer to the right frame."""
        self._family, self._budget, self._sampling, self._usage = family, budget, sampling, usage
        self._max_pixels = min(sampling.max_pixels, budget.max_pixels)

    @abstractmethod
    def _generate(self, request: TeacherRequest) -> TeacherReply:
        """Generate one reply. Raises TeacherError if this one request failed, and counts the failure in the usage."""

    def reason(self, request: ReasoningRequest) -> str:
        """Write one thought; the prompt holds names, boxes, cards and the answer, and the image if there is one."""
        sample = request.sample
        if len(answers := targets(sample)) != 1 and sample.task == "ground" and sample.boxes:
            raise FieldmarkError(f"sample {sample.id}: {len(answers)} things are {sample.entity!r}; one is needed")
        view = None if request.image is None else ImageView(request.image, self._max_pixels)
        frame = self._frame(sample.size if view is None else view.size)
        # A reproducible seed for one sample: 31 bits, the most that servers accept.
        digest = hashlib.sha256(f"{request.seed}/{sample.id}".encode()).digest()
        text = prompts.reasoning(request, self._family, frame)
        prompt = self._request(f"reasoning for sample {sample.id}", text, view, int.from_bytes(digest[:4], "big") >> 1)
        prompt = replace(prompt, temperature=self._sampling.temperature)
        return self._ask(prompt, lambda text: teacher_parsing.thought(text, sample, frame))

    def marks(self, entity: str, domain: str) -> tuple[str, ...]:
        """Return the field marks of an entity, most distinctive first; empty if the model knows none."""
        text = prompts.fill(prompts.MARKS, domain, entity=entity)
        return self._ask(self._request(f"marks of {entity}", text), teacher_parsing.marks)

    def differences(self, entity: str, other: str, domain: str) -> tuple[tuple[str, str], ...]:
        """Return how two entities differ, as pairs of marks; empty if the model does not know."""
        text = prompts.fill(prompts.DIFFERENCES, domain, entity=entity, other=other)
        request = self._request(f"{entity} beside {other}", text)
        return self._ask(request, lambda text: teacher_parsing.differences(text, entity, other))

    def sees(self, look: Look, marks: Sequence[str]) -> tuple[bool | None, ...]:
        """Return for each mark whether it is visible; None where the model cannot tell."""
        if not marks:
            return ()
        text = prompts.fill(prompts.SEES, look.domain, marks=prompts.numbered(marks))
        request = self._request(f"marks on {_place(look)}", text, self._view(look, MARGIN))
        return self._ask(request, lambda text: teacher_parsing.verdicts(text, len(marks)))

    def describe(self, look: Look, *, seed: int = 0) -> str:
        """Describe the image, or the thing in the box, in one to three sentences."""
        text, view = prompts.fill(prompts.DESCRIBE, look.domain), self._view(look, MARGIN)
        return self._ask(self._request(f"description of {_place(look)}", text, view, seed), teacher_parsing.prose)

    def point(self, look: Look, entity: str, *, seed: int = 0) -> tuple[Box, ...]:
        """Return the boxes of an entity in the unit frame of the whole image; with `look.box`, only those inside it."""
        view = self._view(look, 0.0)
        frame = self._frame(view.size)
        text = prompts.fill(prompts.POINT, look.domain, entity=entity, scale=prompts.scale(frame))
        request = self._request(f"{entity} in {_place(look)}", text, view, seed)
        found = self._ask(request, lambda text: teacher_parsing.boxes(text, self._family, frame))
        return found if look.box is None else tuple(box.inside(view.window) for box in found)

    def blend(self, captions: Sequence[str], *, seed: int = 0) -> str:
        """Merge captions of one image into one."""
        if not captions:
            raise FieldmarkError("blend needs at least one caption")
        text = prompts.BLEND.format(captions=prompts.numbered(captions))
        return self._ask(self._request(f"blend of {captions[0][:40]!r}", text, seed=seed), teacher_parsing.prose)

    def expand(self, caption: str, description: str, *, seed: int = 0) -> str:
        """Add details of a description to a caption."""
        text = prompts.EXPAND.format(caption=caption, description=description)
        return self._ask(self._request(f"expansion of {caption[:40]!r}", text, seed=seed), teacher_parsing.prose)

    def report(self) -> UsageReport:
        """Return the usage so far."""
        return self._usage.report()

    @abstractmethod
    def close(self) -> None:
        """Close connections and threads; the report stays available."""

    def _request(self, what: str, text: str, view: ImageView | None = None, seed: int = 0) -> TeacherRequest:
        """Build the request for a judgement or first opinion (seed 0: greedy) or for another opinion (sampled)."""
        temperature = self._sampling.temperature if seed else 0.0
        return TeacherRequest(what, text, () if view is None else (view,), temperature, seed, self._sampling.max_tokens)

    def _ask(self, request: TeacherRequest, parse: Callable[[str], T]) -> T:
        """Generate a reply and parse it; a reply that cannot be parsed counts as a failure."""
        reply = self._generate(request) if is_utf8(request.text) else None
        try:
            if reply is None:
                raise TeacherError("half a character", "the text to send is not Unicode; correct it in the input")
            if reply.truncated:
                raise TeacherError("reply truncated", f"{request.max_tokens} tokens are not enough; raise max_tokens")
            return parse(reply.text)
        except TeacherError as error:
            self._usage.failed(Failure(request.what, error.reason, error.detail, 1))
            raise

    def _view(self, look: Look, margin: float) -> ImageView:
        box = look.box
        if box is not None and margin:
            x, y = margin * box.width, margin * box.height
            box = Box(max(box.x1 - x, 0), max(box.y1 - y, 0), min(box.x2 + x, 1), min(box.y2 + y, 1))
        return ImageView(look.image, self._max_pixels, box)

    def _frame(self, size: Frame) -> Frame:
        """Return the frame the model writes boxes in for an image of this size."""
        try:
            return self._family.frame(size, self._budget)
        except FamilyError as error:
            raise TeacherError("image does not fit the model", str(error)) from None


def _place(look: Look) -> str:
    """Name an image or a box of it in a list of failures."""
    part = "" if look.box is None else " at " + ",".join(f"{side:.3f}" for side in look.box.to_xyxy(Frame(1, 1)))
    return f"{Path(look.image).name}{part}"
