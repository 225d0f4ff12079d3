"""Ask a model about an image: for a thing by name, in words, about a box. Terminal, page and notebook use it.

model = mllm.load("runs/pocket/rl/best")
found = model.ground("field.jpg", "black redstart")
found.thought, found.box, found.pixels; found.draw().save("found.png")
model.ask("field.jpg", "What is at #1?", about=found.boxes).answer
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from mllm.boxes import Box, Frame
from mllm.captions import QUESTION
from mllm.errors import BoxError, FieldmarkError
from mllm.inference.grounding import Grounding
from mllm.io.images import open_image
from mllm.knowledge import domains
from mllm.models.families import Family
from mllm.prompting import answers, prompts, styles
from mllm.records import Answer

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.inference.backends import Writer
    from mllm.models.checkpoint import Loaded

ANY_DOMAIN = "Point out the {entity} with one box."
"""The question where it is not known what kind of thing is looked for."""
_ABOUT = re.compile(r"#(\d{1,3})\b")
_TAG = re.compile(r"</?(?:think|answer)>")


@dataclass(frozen=True, slots=True)
class Assistant:
    """Somebody who can be asked. Prompt, system text and image budget are those that the model was trained with."""

    writer: Writer

    @property
    def loaded(self) -> Loaded:
        """The loaded model, where it is one of this process."""
        return self.writer.loaded  # pyright: ignore[reportAttributeAccessIssue]

    def ask(
        self,
        image: str | Path | Image,
        question: str,
        *,
        name: str | None = None,
        about: Sequence[Box] = (),
        before: Sequence[tuple[str, str]] = (),
        style: str | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        tell: Callable[[str], None] | None = None,
        gone: Event | None = None,
    ) -> Grounding:
        """Ask in words about an image, or about a box in it.

        Args:
            image: a file, or a PIL image.
            question: `#1` in it stands for the first box of `about`, written as the model writes boxes.
            name: what boxes of the answer are called; None takes it from the question.
            about: boxes that the question may refer to.
            before: earlier turns on this image that the model shall remember (`Grounding.turn`). Checkpoints that
                were trained on single questions know no such thing, so nothing is remembered unless it is given here.
            style: prompt style; None means the one that the model was trained with, and `plain` (the question as it
                stands) for questions about a box.
            max_new_tokens: room for reasoning and answer; None is 1024, or what the model has left.
            temperature: 0 is greedy.
            seed: of the sampling.
            tell: called with each piece of text while the model writes.
            gone: set by another thread when nobody waits any more.

        Raises:
            FieldmarkError: the image cannot be opened, an empty question, a number without a box, an unknown style.
        """
        from mllm.inference.backends import Request  # here, since it brings torch along

        if not question.strip():
            raise FieldmarkError("ask something: the name of a thing, or a question")
        picture, convention = _opened(image), self.writer.convention
        frame = self.writer.family.frame(Frame(*picture.size), convention.budget)
        words = refer(question, about, self.writer.family, frame)
        style = style or (styles.PLAIN if words != question else convention.prompt)
        asked = prompts.user_text(words, style)
        messages = _talk([*before, (asked, None)], convention.system)
        started = time.monotonic()
        request = Request(messages, [picture], max_new_tokens, temperature, seed, tell, gone, style)
        written = self.writer.write(request)
        read = _read(written.text, style, self.writer.family, frame)
        return Grounding(
            name=name or named(question),
            question=question,
            asked=asked,
            style=style,
            boxes=read.boxes,
            candidates=_candidates(read, self.writer.family, frame),
            thought=read.thought,
            answer=read.answer,
            text=written.text,
            problem="the model says that it is not in the image" if read.absent else read.problem,
            absent=read.absent,
            truncated=written.truncated,
            tokens=written.tokens,
            seconds=round(time.monotonic() - started, 2),
            model=self.writer.name,
            image=picture,
        )

    def ground(self, image: str | Path | Image, name: str, *, domain: str | None = None, **options: Any) -> Grounding:
        """Find the thing called `name` in an image.

        Args:
            image: a file, or a PIL image.
            name: of the thing; a text that ends with `.` or `?` is asked as it stands.
            domain: kind of thing (`mllm.knowledge.domains`), for the wording; the pocket world's species know their own.
            options: those of `ask`.

        Raises:
            FieldmarkError: as `ask`; an empty name, an unknown domain.
        """
        question = question_for(name, domain)
        return self.ask(image, question, name=named(question) if question == name else name.strip(), **options)

    def caption(self, image: str | Path | Image, question: str = QUESTION, **options: Any) -> str:
        """Return what the model says to a question about an image, without asking for a box. Options as `ask`."""
        options = {"max_new_tokens": 256, **options}
        return self.ask(image, question, style=styles.PLAIN, **options).text.strip()


def load(
    name: str | Path = "pocket",
    *,
    device: str = "auto",
    dtype: str = "float32",
    family: str | None = None,
    adapter: str | Path | None = None,
    quantize: str | None = None,
    batch: int = 1,
) -> Assistant:
    """Load a model to ask: a checkpoint folder, an adapter folder, a Hub name, `pocket`, or a server's address.

        load("http://127.0.0.1:8000/v1")                                              # `fieldmark serve`
        load("http://gpu:8000/v1#Qwen/Qwen3-VL-8B-Instruct", family="qwen3_vl")       # vLLM and others

    `family` is needed only where no fieldmark.json lies beside the weights, or a server does not say it. On a GPU
    `dtype="bfloat16"` halves memory, and `quantize="4bit"`, as QLoRA trains, brings it to about a third of that.
    With `batch` above 1, questions of several threads are answered together.

    Raises:
        FieldmarkError: no such checkpoint, no such server, or nobody knows how its model writes boxes.
    """
    if str(name).startswith(("http://", "https://")):
        from mllm.inference.openai_client import Endpoint

        return Assistant(Endpoint(str(name), family=family))
    from mllm.inference.backends import Local
    from mllm.models import checkpoint

    loaded = checkpoint.load(str(name), device=device, dtype=dtype, family=family, adapter=adapter, quantize=quantize)
    return Assistant(Local(loaded, str(name), batch=batch))


def ground(image: str | Path | Image, name: str, *, model: str | Path = "pocket", **options: Any) -> Grounding:
    """Find a thing by name with the model called `model`, which stays loaded. Options as `Assistant.ground`."""
    return _kept(str(model)).ground(image, name, **options)


def caption(image: str | Path | Image, *, model: str | Path = "pocket", **options: Any) -> str:
    """Describe an image with the model called `model`, which stays loaded. Options as `Assistant.caption`."""
    return _kept(str(model)).caption(image, **options)


def question_for(name: str, domain: str | None = None) -> str:
    """Word the question for a thing as the training data do; a whole sentence is left as it is.

    Raises:
        FieldmarkError: an empty name, or an unknown domain.
    """
    name = " ".join(name.split())
    if not name:
        raise FieldmarkError("name the thing to look for")
    if name.endswith((".", "?")) or _ABOUT.search(name):
        return name
    domain = domain or _pocket_domain(name)
    return domains.load(domain).question(name) if domain else ANY_DOMAIN.format(entity=name)


def named(question: str) -> str:
    """Return the thing that a question asks for, where it is worded as the training data are; else the question."""
    for template in (ANY_DOMAIN, *(one for domain in domains.names() for one in domains.load(domain).questions)):
        before, _, after = template.partition("{entity}")
        if question.startswith(before) and question.endswith(after) and len(question) > len(before) + len(after):
            return question[len(before) : len(question) - len(after)].removeprefix("with marks ")
    return question if len(question) <= 40 else f"{question[:39]}…"


def refer(question: str, about: Sequence[Box], family: Family, frame: Frame) -> str:
    """Write each `#K` of a question as the K-th box, in the model's own words. A number without a box is an error."""

    def spell(found: re.Match[str]) -> str:
        number = int(found[1])
        if not 1 <= number <= len(about):
            has = f"numbers go from 1 to {len(about)}" if about else "no box has been found yet"
            raise FieldmarkError(f"{found[0]} is none of this image's boxes: {has}")
        return family.mention(about[number - 1], frame)

    return _ABOUT.sub(spell, question)


@cache
def _kept(name: str) -> Assistant:
    """Load a model once in this process."""
    return load(name)


def _pocket_domain(name: str) -> str | None:
    """Return the domain of a species of the pocket world, None for any other name."""
    from mllm.pocket.species import species

    return next((one.domain for one in species() if one.name == name), None)


def _opened(image: str | Path | Image) -> Image:
    """Open a file, or take a PIL image as 8-bit RGB."""
    return open_image(image) if isinstance(image, str | Path) else image.convert("RGB")


def _talk(turns: Sequence[tuple[str, str | None]], system: str | None) -> list[dict[str, Any]]:
    """Return questions and answers as a conversation, the image in its first question."""

    def says(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}]}

    talk = [says("system", system)] if system else []
    for number, (asked, answered) in enumerate(turns):
        turn = says("user", asked)
        if number == 0:
            turn["content"].insert(0, {"type": "image"})
        talk += [turn, says("assistant", answered)] if answered is not None else [turn]
    return talk


def _read(text: str, style: str, family: Family, frame: Frame) -> Answer:
    """Read what was written. An answer to a question as it stands wears no tags: all of it is the answer."""
    bare = style == styles.PLAIN and not _TAG.search(text)
    return answers.parse(f"<answer>{text}</answer>" if bare else text, family, frame)


def _candidates(read: Answer, family: Family, frame: Frame) -> tuple[Box, ...]:
    """Return the boxes of the thought, each once, without those of the answer."""
    found: dict[Box, None] = {}
    for numbers in family.read(read.thought or ""):
        try:
            found[Box.from_xyxy(numbers, frame)] = None
        except BoxError:  # model text: a box that is none is not drawn
            continue
    return tuple(box for box in found if box not in read.boxes)
