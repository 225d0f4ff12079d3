"""Questions of several people in one batch, each with settings of its own: room, temperature, seed, where to stop.

transformers' own sampling draws from one generator for the whole batch, so that an answer depends on who else asks.
Here each row has its own, and what it writes does not depend on its neighbours (up to the rounding of padded
arithmetic). A row that is done, or whose asker has gone, stops by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TopPLogitsWarper,
)

from mllm.errors import FieldmarkError
from mllm.inference import generate

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.models.checkpoint import Loaded

_one_at_a_time = Lock()
"""Around processors: their tokenizers keep padding and truncation as state, and fail when two threads meet there."""
_SEQUENCES = ("attention_mask", "mm_token_type_ids", "token_type_ids")
"""Inputs of one value a token besides the tokens; padding is 0 in all of them."""


@dataclass(frozen=True, eq=False)
class Job:
    """One question, ready for the model. `tell` gets each piece of text as it is written; `gone` stops the row."""

    inputs: dict[str, torch.Tensor]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    tell: Callable[[str], None] | None = None
    gone: Event = field(default_factory=Event)

    @property
    def tokens(self) -> int:
        """How many tokens the question takes, images included."""
        return int(self.inputs["input_ids"].shape[1])


@dataclass(frozen=True, slots=True)
class Written:
    """An answer. `truncated`: it ran out of room; `tokens` counts what was written, its end included."""

    text: str
    tokens: int
    truncated: bool


def prepare(loaded: Loaded, messages: list[dict[str, Any]], images: Sequence[Image], **settings: Any) -> Job:
    """Turn a conversation with any number of images, in the order of its image parts, into a job.

    Raises:
        FieldmarkError: other than one image for each image part; a question that leaves no room for its answer.
    """
    processor = loaded.processor
    shown: dict[str, Any] = {}
    if images:
        sizes = {"size": loaded.convention.budget.size, "return_tensors": "pt"}
        shown = {"images": [list(images)], "images_kwargs": sizes}
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    wanted = sum(part["type"] == "image" for turn in messages for part in turn["content"])
    if wanted != len(images):
        raise FieldmarkError(f"the conversation has {wanted} image parts, {len(images)} images were given")
    with _one_at_a_time:
        inputs = processor(text=[text], text_kwargs={"return_tensors": "pt"}, **shown)
    job = Job(dict(inputs), **settings)
    room = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and job.tokens + job.max_new_tokens > room:
        raise FieldmarkError(
            f"the question takes {job.tokens} tokens and {job.max_new_tokens} are asked for; the model has {room}"
        )
    return job


def write(loaded: Loaded, jobs: Sequence[Job]) -> list[Written]:
    """Answer jobs in one batch."""
    inputs = {name: value.to(loaded.model.device) for name, value in _padded(loaded, jobs).items()}
    start = inputs["input_ids"].shape[1]
    rows = _Rows(loaded, jobs, start)
    with torch.no_grad():
        tokens = loaded.model.generate(
            **inputs,
            generation_config=generate.settings(loaded, max(job.max_new_tokens for job in jobs)),
            logits_processor=LogitsProcessorList([_Sampler(jobs, loaded.model.device)]),
            stopping_criteria=StoppingCriteriaList([rows]),
        )
    return rows.finish(tokens[:, start:].tolist())


class _Sampler(LogitsProcessor):
    """Draws each row's next token from softmax(scores / temperature) with the row's own generator.

    Gumbel-max: the argmax of scores / T - log(E), E exponential with mean 1, has exactly that distribution (Gumbel
    1954), so the greedy search around it becomes sampling. Rows of temperature 0 pass through untouched.
    """

    def __init__(self, jobs: Sequence[Job], device: torch.device) -> None:
        self.jobs = jobs
        self.generators = [torch.Generator(device).manual_seed(job.seed) for job in jobs]
        self.warpers = [TopPLogitsWarper(job.top_p) if job.top_p < 1 else None for job in jobs]

    def __call__(self, input_ids: Any, scores: torch.FloatTensor) -> torch.FloatTensor:
        scores_BV: Any = scores.clone()
        for row, (job, generator, warper) in enumerate(zip(self.jobs, self.generators, self.warpers, strict=True)):
            if job.temperature == 0:
                continue
            scaled_1V = scores_BV[row : row + 1].float() / job.temperature
            if warper is not None:
                scaled_1V = warper(input_ids[row : row + 1], scaled_1V)
            noise_1V = torch.empty_like(scaled_1V).exponential_(generator=generator)
            scores_BV[row] = (scaled_1V - noise_1V.log())[0].to(scores_BV.dtype)
        return scores_BV


class _Rows(StoppingCriteria):
    """Watches every row: stops it when it is full, has written a stop text or is no longer wanted; tells its text."""

    def __init__(self, loaded: Loaded, jobs: Sequence[Job], start: int) -> None:
        self.loaded, self.jobs, self.start = loaded, jobs, start
        self.told = [0] * len(jobs)
        self.done = [False] * len(jobs)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        rows = input_ids[:, self.start :].tolist()
        for k, (job, row) in enumerate(zip(self.jobs, rows, strict=True)):
            if self.done[k]:
                continue
            ended = len(row) >= job.max_new_tokens or job.gone.is_set() or not generate.is_truncated(self.loaded, row)
            if job.stop or job.tell:
                text, stopped = cut(generate.decode(self.loaded, row), job.stop)
                ended |= stopped
                self._tell(k, text if ended else _safe(text, job.stop))
            self.done[k] = ended
        return torch.tensor(self.done, device=input_ids.device)  # pyright: ignore[reportReturnType]

    def finish(self, rows: Sequence[list[int]]) -> list[Written]:
        """Return what each row wrote up to its end; padding after it is dropped."""
        written = []
        for job, row in zip(self.jobs, rows, strict=True):
            row = row[: job.max_new_tokens]
            ends = (k for k, token in enumerate(row, 1) if not generate.is_truncated(self.loaded, [token]))
            row = row[: next(ends, None)]
            text, stopped = cut(generate.decode(self.loaded, row), job.stop)
            if stopped:
                row = row[: self._length_of(row, job)]
            written.append(Written(text, len(row), not stopped and generate.is_truncated(self.loaded, row)))
        return written

    def _length_of(self, row: list[int], job: Job) -> int:
        """Return after how many tokens the stop text was complete."""
        return next(k for k in range(1, len(row) + 1) if cut(generate.decode(self.loaded, row[:k]), job.stop)[1])

    def _tell(self, k: int, text: str) -> None:
        """Hand on what is new of a row's text."""
        tell = self.jobs[k].tell
        if tell is not None and len(text) > self.told[k]:
            tell(text[self.told[k] :])
            self.told[k] = len(text)


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop text in it, and whether there was one."""
    ends = [place for place in (text.find(one) for one in stop) if place >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def _safe(text: str, stop: Sequence[str]) -> str:
    """Return what of a growing text can be told: no half character, nothing that may become a stop text."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    held = max((k for one in stop for k in range(1, len(one)) if text.endswith(one[:k])), default=0)
    return text[: len(text) - held]


def _padded(loaded: Loaded, jobs: Sequence[Job]) -> dict[str, torch.Tensor]:
    """Put jobs into one batch: sequences padded on the left, images one after the other."""
    longest = max(job.tokens for job in jobs)
    pad = generate.settings(loaded, 1).pad_token_id
    parts: dict[str, list[torch.Tensor]] = {}
    for job in jobs:
        for name, value in job.inputs.items():
            if name == "input_ids" or name in _SEQUENCES:
                fill = pad if name == "input_ids" else 0
                value = torch.nn.functional.pad(value, (longest - job.tokens, 0), value=fill)
            parts.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in parts.items()}
