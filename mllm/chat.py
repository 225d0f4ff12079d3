"""Ask a loaded model for a thing by name, or for a caption: what `fieldmark chat` and a notebook use.

model = mllm.load("runs/pocket/rl/best")
found = model.ground("field.jpg", "black redstart")
found.thought, found.box, found.pixels; found.picture().save("found.png")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm import answers, domains, pictures, prompts
from mllm.boxes import Box, Frame
from mllm.captions import QUESTION
from mllm.errors import FieldmarkError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.models import Loaded

ANY_DOMAIN = "Point out the {entity} with one box."
"""The question where it is not known what kind of thing is looked for."""


@dataclass(frozen=True, slots=True)
class Grounding:
    """What the model said about one thing. `box` is None where the answer names none; `problem` says why."""

    name: str
    question: str
    box: Box | None
    thought: str | None
    text: str
    problem: str | None
    clipped: bool
    image: Image = field(repr=False)

    @property
    def pixels(self) -> tuple[int, int, int, int] | None:
        """The box as x1, y1, x2, y2 in the picture's own pixels."""
        if self.box is None:
            return None
        x1, y1, x2, y2 = (round(number) for number in self.box.to_xyxy(Frame(*self.image.size)))
        return x1, y1, x2, y2

    def picture(self) -> Image:
        """Return the picture with the box drawn and named; the bare picture where there is none."""
        from mllm.report.drawing import Mark, draw

        return draw(self.image, [Mark(self.box, self.name)] if self.box else [])


@dataclass(frozen=True, slots=True)
class Assistant:
    """A loaded model that can be asked. The prompt, system text and picture budget are those it was trained with."""

    loaded: Loaded

    def ground(
        self,
        image: str | Path | Image,
        name: str,
        *,
        domain: str | None = None,
        style: str | None = None,
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
        tell: Callable[[str], None] | None = None,
    ) -> Grounding:
        """Find the thing called `name` in a picture.

        Args:
            image: a file, or a PIL picture.
            name: of the thing; a text that ends with `.` or `?` is asked as it stands.
            domain: kind of thing (`mllm.domains`), for the wording; the pocket world's species know their own.
            style: prompt style; None means the one the model was trained with.
            max_new_tokens: room for reasoning and answer.
            temperature: 0 is greedy.
            seed: of the sampling.
            tell: called with each piece of text while the model writes.

        Raises:
            FieldmarkError: the picture cannot be opened, an empty name, an unknown domain or style.
        """
        picture, question = _opened(image), question_for(name, domain)
        messages = prompts.messages(
            question, style or self.loaded.convention.prompt, system=self.loaded.convention.system
        )
        text, clipped = self._write(messages, picture, max_new_tokens, temperature, seed, tell)
        frame = self.loaded.family.frame(Frame(*picture.size), self.loaded.convention.budget)
        answer = answers.parse(text, self.loaded.family, frame)
        problem = "the model says that it is not in the picture" if answer.absent else answer.problem
        return Grounding(name.strip(), question, answer.box, answer.thought, text, problem, clipped, picture)

    def caption(
        self,
        image: str | Path | Image,
        question: str = QUESTION,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        tell: Callable[[str], None] | None = None,
    ) -> str:
        """Return what the model says to a question about a picture, without asking for a box."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        system = self.loaded.convention.system
        before = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        messages: list[dict[str, Any]] = [*before, {"role": "user", "content": content}]
        return self._write(messages, _opened(image), max_new_tokens, temperature, seed, tell)[0].strip()

    def _write(
        self, messages: list[dict[str, Any]], picture: Image, room: int, temperature: float, seed: int, tell: Any
    ) -> tuple[str, bool]:
        """Let the model write one answer; returns the text and whether it ran out of room."""
        from mllm import generate

        inputs = generate.encode(self.loaded, [messages], [picture])
        config = generate.settings(self.loaded, room, temperature)
        streamer = _streamer(self.loaded.processor.tokenizer, tell) if tell else None
        (row,) = generate.write(self.loaded, inputs, config, seed=seed, streamer=streamer)
        return generate.decode(self.loaded, row), generate.is_clipped(self.loaded, row)


def load(
    name: str | Path = "pocket",
    *,
    device: str = "auto",
    dtype: str = "float32",
    family: str | None = None,
    adapter: str | Path | None = None,
) -> Assistant:
    """Load a model to ask: a checkpoint folder, an adapter folder, a Hub name, or `pocket`.

    `family` is needed only where no fieldmark.json lies beside the weights. On a GPU `dtype="bfloat16"` halves memory.

    Raises:
        FieldmarkError: no such checkpoint, or nobody knows how it writes boxes (see `mllm.models.load`).
    """
    from mllm import models

    return Assistant(models.load(str(name), device=device, dtype=dtype, family=family, adapter=adapter))


def ground(image: str | Path | Image, name: str, *, model: str | Path = "pocket", **options: Any) -> Grounding:
    """Find a thing by name with the model called `model`, which stays loaded. Options as `Assistant.ground`."""
    return _kept(str(model)).ground(image, name, **options)


def caption(image: str | Path | Image, *, model: str | Path = "pocket", **options: Any) -> str:
    """Describe a picture with the model called `model`, which stays loaded. Options as `Assistant.caption`."""
    return _kept(str(model)).caption(image, **options)


def question_for(name: str, domain: str | None = None) -> str:
    """Word the question for a thing as the training data do; a whole sentence is left as it is.

    Raises:
        FieldmarkError: an empty name, or an unknown domain.
    """
    name = " ".join(name.split())
    if not name:
        raise FieldmarkError("name the thing to look for")
    if name.endswith((".", "?")):
        return name
    domain = domain or _pocket_domain(name)
    return domains.load(domain).question(name) if domain else ANY_DOMAIN.format(entity=name)


@cache
def _kept(name: str) -> Assistant:
    """Load a model once in this process."""
    return load(name)


def _pocket_domain(name: str) -> str | None:
    """Return the domain of a species of the pocket world, None for any other name."""
    from mllm.pocket.species import species

    return next((one.domain for one in species() if one.name == name), None)


def _opened(image: str | Path | Image) -> Image:
    """Open a file, or take a PIL picture as 8-bit RGB."""
    return pictures.load(image) if isinstance(image, str | Path) else image.convert("RGB")


def _streamer(tokenizer: Any, tell: Callable[[str], None]) -> Any:
    """Return a streamer that hands text on while it is written."""
    from transformers import TextStreamer

    class Teller(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            tell(text)

    return Teller(tokenizer, skip_prompt=True, skip_special_tokens=True)
