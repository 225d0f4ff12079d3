"""Ask a model about an image: for a thing by name, for the name of a thing, in words. Used by terminal, page, notebook.

model = mllm.load("runs/pocket/rl/best")
found = model.ground("field.jpg", "black redstart")
found.thought, found.box, found.pixels; found.draw().save("found.png")
model.name("field.jpg", domain="bird", box=found.box).named
model.ask("field.jpg", "What is at #1?", about=found.boxes).answer
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from mllm.boxes import Box, Frame
from mllm.captions import QUESTION, caption_of
from mllm.errors import BoxError, FieldmarkError, UnknownNameError
from mllm.inference.backends import Backend, LocalBackend, Prompt
from mllm.inference.grounding import TAG, Grounding
from mllm.inference.sampling import Sampling
from mllm.io.images import open_image
from mllm.knowledge import domains
from mllm.models.families import Family
from mllm.prompting import prompts, questions, tasks

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.models.checkpoint import Loaded

ANY_DOMAIN = "Point out the {entity} with one box."
"""The question where the kind of thing is not known."""
SAMPLING_OPTIONS = tuple(item.name for item in fields(Sampling))
_WHAT = re.compile(r"\?\s?(#\d{1,3})?")
_BOX_NUMBER = re.compile(r"#(\d{1,3})\b")


@dataclass(frozen=True, slots=True)
class Assistant:
    """A model that can be asked about images, with the prompt, system text and image budget it was trained with."""

    backend: Backend

    @property
    def loaded(self) -> Loaded:
        """The loaded model, where it runs in this process."""
        return self.backend.loaded  # pyright: ignore[reportAttributeAccessIssue]

    def ask(
        self,
        image: str | Path | Image,
        question: str,
        *,
        about: Sequence[Box] = (),
        history: Sequence[tuple[str, str]] = (),
        style: str | None = None,
        on_text: Callable[[str], None] | None = None,
        cancelled: Event | None = None,
        **sampling: Any,
    ) -> Grounding:
        """Ask a question in words about an image, or about a box in it.

        Args:
            image: a file, or a PIL image.
            question: `#1` in it stands for the first box of `about`, written as the model writes boxes.
            about: boxes that the question may refer to, in the unit frame.
            history: earlier turns on this image (`Grounding.turn`) to send along. Checkpoints trained on single
                questions cannot use them, so none are sent by default.
            style: prompt style; None is the one that the model was trained with, and `plain` (no instruction after the
                question) for questions about a box.
            on_text: called with each piece of text while it is generated.
            cancelled: set it in another thread to end the generation early.
            sampling: the fields of `Sampling`: `max_new_tokens`, `temperature`, `top_p`, `seed`.

        Raises:
            FieldmarkError: an image that cannot be opened, an empty question, a number without a box, an unknown style
                or option.
        """
        if unknown := set(sampling) - set(SAMPLING_OPTIONS):
            raise UnknownNameError("option", min(unknown), SAMPLING_OPTIONS)
        if not question.strip():
            raise FieldmarkError("the question is empty: give the name of a thing, or a question")
        opened = open_image(image) if isinstance(image, str | Path) else image.convert("RGB")
        family, convention = self.backend.family, self.backend.convention
        frame = family.frame(Frame(*opened.size), convention.budget)
        words = insert_boxes(question, about, family, frame)
        named = questions.asks_for_name(question)
        style = style or (prompts.PLAIN if words != question and not named else convention.prompt)
        text = prompts.user_text(words, style)
        messages = _messages([*history, (text, None)], convention.system)
        started = time.monotonic()
        generation = self.backend.generate(Prompt(messages, [opened], style), Sampling(**sampling), on_text, cancelled)
        thought, closed, rest = generation.text.rpartition("</think>")
        bare = style == prompts.PLAIN and not TAG.search(rest)  # a text without tags counts as the answer
        whole = f"{thought}{closed}<answer>{rest}</answer>" if bare else generation.text
        parsed = tasks.load("name" if named else "ground").read(whole, "", family, frame)[1]
        return Grounding(
            name=entity_of(question),
            question=question,
            prompt=text,
            style=style,
            image=opened,
            model=self.backend.name,
            parsed=parsed,
            candidates=tuple(box for box in _boxes(parsed.thought or "", family, frame) if box not in parsed.boxes),
            generation=generation,
            seconds=round(time.monotonic() - started, 2),
        )

    def ground(self, image: str | Path | Image, name: str, *, domain: str | None = None, **options: Any) -> Grounding:
        """Find the thing called `name` in an image.

        Args:
            image: a file, or a PIL image.
            name: of the thing; a text that ends with `.` or `?` is sent unchanged.
            domain: kind of thing, any noun (`mllm.knowledge.domains`), for the wording; pocket species need none.
            options: those of `ask`.

        Raises FieldmarkError: as `ask`; an empty name, a domain that cannot be a noun.
        """
        question = question_for(name, domain)
        found = self.ask(image, question, **options)
        return found if question == name else replace(found, name=name.strip())

    def name(
        self,
        image: str | Path | Image,
        *,
        domain: str | None = None,
        box: Box | None = None,
        names: Sequence[str] = (),
        **options: Any,
    ) -> Grounding:
        """Say what is on an image: `Grounding.named`.

        Args:
            image: a file, or a PIL image.
            domain: kind of thing (`mllm.knowledge.domains`), for the wording.
            box: ask about the thing there, in the unit frame, not about the whole image.
            names: to choose from, at most 26; otherwise the question is open.
            options: those of `ask`.

        Raises FieldmarkError: as `ask`; an unknown domain, too many names.
        """
        question = questions.naming(domains.noun(domain or ""), "this" if box is None else "at #1", names)
        return self.ask(image, question, about=() if box is None else (box,), **options)

    def caption(self, image: str | Path | Image, question: str = QUESTION, **options: Any) -> str:
        """Return the model's answer to a question that does not ask for a box. Options as `ask`; 256 tokens at most."""
        return caption_of(self.ask(image, question, style=prompts.PLAIN, **{"max_new_tokens": 256, **options}).text)


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
    """Load a model to ask: a checkpoint folder, an adapter folder, a Hub name, `pocket`, or the address of a server.

        load("http://127.0.0.1:8000/v1")                                              # `fieldmark serve`
        load("http://gpu:8000/v1#Qwen/Qwen3-VL-8B-Instruct", family="qwen3_vl")       # vLLM and others

    `family` is needed only where there is no fieldmark.json beside the weights, or the server does not state it. On a
    GPU `dtype="bfloat16"` halves the memory, and `quantize="4bit"` brings it to about a third of that. With `batch`
    above 1, questions of several threads are answered together. Raises FieldmarkError: no such checkpoint, no such
    server, or it is not known how its model writes boxes.
    """
    if str(name).startswith(("http://", "https://")):
        from mllm.inference.openai_client import ServerBackend

        return Assistant(ServerBackend(str(name), family=family))
    from mllm.models import checkpoint

    options = checkpoint.LoadOptions(dtype=dtype, device=device, quantize=quantize)
    loaded = checkpoint.load(str(name), options, family=family, adapter=adapter)
    return Assistant(LocalBackend(loaded, str(name), batch=batch))


_cached = cache(load)


def ground(image: str | Path | Image, name: str, *, model: str | Path = "pocket", **options: Any) -> Grounding:
    """Find a thing by name with `model`, which stays loaded. Options as `Assistant.ground`."""
    return _cached(str(model)).ground(image, name, **options)


def caption(image: str | Path | Image, *, model: str | Path = "pocket", **options: Any) -> str:
    """Describe an image with `model`, which stays loaded. Options as `Assistant.caption`."""
    return _cached(str(model)).caption(image, **options)


def question_for(name: str, domain: str | None = None) -> str:
    """Word the question for a thing as the training data do; a whole sentence is returned unchanged.

    `?` asks what is on the image, and `? #1` what is at the first box.

    Raises FieldmarkError: an empty name, or as `domains.check`.
    """
    name = " ".join(name.split())
    if not name:
        raise FieldmarkError("the name of the thing to look for is empty")
    if found := _WHAT.fullmatch(name):
        return questions.naming(domains.noun(domain or ""), f"at {found[1]}" if found[1] else "this")
    if name.endswith((".", "?")) or _BOX_NUMBER.search(name):
        return name
    if not domain:
        from mllm.pocket.species import species

        domain = next((one.domain for one in species() if one.name == name), None)
    return domains.check(domain).question(name) if domain else ANY_DOMAIN.format(entity=name)


def entity_of(question: str) -> str:
    """Return the thing that a question asks for if it is worded as in the training data; otherwise the question."""
    for template in (ANY_DOMAIN, *(one for domain in domains.names() for one in domains.load(domain).questions)):
        before, _, after = template.partition("{entity}")
        if question.startswith(before) and question.endswith(after) and len(question) > len(before) + len(after):
            return question[len(before) : len(question) - len(after)].removeprefix("with marks ")
    return question if len(question) <= 40 else f"{question[:39]}…"


def insert_boxes(question: str, about: Sequence[Box], family: Family, frame: Frame) -> str:
    """Replace each `#K` of a question by the K-th box, as the model writes it. Raises for a number without a box."""

    def write(found: re.Match[str]) -> str:
        number = int(found[1])
        if not 1 <= number <= len(about):
            known = f"the boxes of this image are #1 to #{len(about)}" if about else "no box has been found yet"
            raise FieldmarkError(f"there is no box {found[0]}: {known}")
        return family.mention(about[number - 1], frame)

    return _BOX_NUMBER.sub(write, question)


def _messages(turns: Sequence[tuple[str, str | None]], system: str | None) -> list[dict[str, Any]]:
    """Return questions and answers as a conversation, with the image in the first question."""
    messages = [prompts.says("system", system)] if system else []
    for number, (question, answer) in enumerate(turns):
        messages.append(prompts.says("user", question))
        if number == 0:
            messages[-1]["content"].insert(0, {"type": "image"})
        if answer is not None:
            messages.append(prompts.says("assistant", answer))
    return messages


def _boxes(text: str, family: Family, frame: Frame) -> list[Box]:
    """Return the boxes of a text, each once, without invalid ones."""
    found: dict[Box, None] = {}
    for numbers in family.read(text):
        with suppress(BoxError):
            found[Box.from_xyxy(numbers, frame)] = None
    return list(found)
