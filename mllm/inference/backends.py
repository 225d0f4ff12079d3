"""What generates an answer: a checkpoint in this process, or a model behind a server (`mllm.inference.openai_client`).

Both take the same prompt and pass on each piece of text while it is generated. `mllm.inference.assistant` uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from mllm.inference.sampling import Sampling
from mllm.models.families import Convention, Family
from mllm.models.processors import template_opening
from mllm.prompting import answers, prompts

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.inference.batched import Job
    from mllm.inference.batcher import Batcher
    from mllm.models.checkpoint import Loaded

OnText = Callable[[str], None]
"""Called with each piece of text as it is generated."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation to answer.

    messages: turns as chat templates take them (`mllm.prompting.prompts.messages`), with one image part per image.
    images: RGB images in the order of those parts.
    style: prompt style of the last question; with `think` the chat template may open the thought.
    """

    messages: list[dict[str, Any]]
    images: Sequence[Image]
    style: str = prompts.PLAIN


@dataclass(frozen=True, slots=True)
class Generation:
    """A generated text. `tokens` counts it with its end token; `truncated`: it reached max_new_tokens."""

    text: str
    tokens: int
    truncated: bool


class Backend(Protocol):
    """A model that answers prompts: its display name, how it writes boxes, the convention it was trained with."""

    name: str
    family: Family
    convention: Convention

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText | None = None, cancelled: Event | None = None
    ) -> Generation:
        """Answer a prompt. Setting `cancelled` in another thread ends the generation early."""
        ...

    def close(self) -> None:
        """Release threads and connections."""
        ...


class LocalBackend:
    """A loaded checkpoint. With `batch` above 1, prompts of several threads are answered together."""

    def __init__(self, loaded: Loaded, name: str, *, batch: int = 1) -> None:
        from mllm.inference import batched
        from mllm.inference.batcher import Batcher

        self.loaded, self.name = loaded, name
        self.family, self.convention = loaded.family, loaded.convention
        self._generate = partial(batched.generate, loaded)
        self._batcher: Batcher[Job, Generation] | None = Batcher(self._generate, max_batch=batch) if batch > 1 else None

    def generate(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText | None = None, cancelled: Event | None = None
    ) -> Generation:
        """Answer a prompt; see `Backend.generate`."""
        from mllm.inference.batched import prepare

        opening = template_opening(self.loaded.processor)
        if opening and on_text is not None:
            on_text(opening)
        job = prepare(self.loaded, prompt, sampling, on_text=on_text, cancelled=cancelled or Event())
        generation = self._batcher(job) if self._batcher is not None else self._generate([job])[0]
        return replace(generation, text=answers.whole(opening, generation.text))

    def close(self) -> None:
        """Finish what is queued."""
        if self._batcher is not None:
            self._batcher.close()
