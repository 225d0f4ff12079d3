"""Prompts of several callers in one batch, each with its own length limit, temperature, seed and stop texts.

Each row has its own random generator (transformers has one for a batch) and does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList, TopPLogitsWarper

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.inference.backends import Generation, OnText, Prompt
from mllm.inference.generate import decode, generation_config, is_truncated
from mllm.inference.sampling import Sampling
from mllm.prompting import special_tokens

if TYPE_CHECKING:
    from mllm.models.checkpoint import Loaded

_processor_lock = Lock()
"""Tokenizers keep padding and truncation as state and fail when two threads use them at once."""
_SEQUENCES = ("attention_mask", "mm_token_type_ids", "token_type_ids")
"""Inputs with one value per token, besides `input_ids`; all of them are padded with 0."""


class ContextError(FieldmarkError):
    """Question and answer do not fit into the model's context."""


@dataclass(frozen=True, eq=False)
class Job:
    """One prompt, ready for the model. `on_text` gets each new piece of text; `cancelled` stops the row."""

    inputs: dict[str, torch.Tensor]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    on_text: OnText | None = None
    cancelled: Event = field(default_factory=Event)

    @property
    def tokens(self) -> int:
        """Number of tokens of the prompt, images included."""
        return int(self.inputs["input_ids"].shape[1])


def prepare(loaded: Loaded, prompt: Prompt, sampling: Sampling, **options: Any) -> Job:
    """Encode a prompt with any number of images; `options` are the other fields of `Job`.

    Raises FieldmarkError: not one image per image part; an image that the model cannot take; a text holds a special
    token. ContextError: prompt and answer do not fit into the model's context.
    """
    processor = loaded.processor
    parts = sum(part["type"] == "image" for turn in prompt.messages for part in turn["content"])
    if parts != len(prompt.images):
        raise FieldmarkError(f"the conversation has {parts} image parts, {len(prompt.images)} images were given")
    images: dict[str, Any] = {}
    for image in prompt.images:
        loaded.family.resized(Frame(*image.size), loaded.convention.budget)
    if prompt.images:
        sizes = {"size": loaded.convention.budget.size, "return_tensors": "pt"}
        images = {"images": [list(prompt.images)], "images_kwargs": sizes}
    find = special_tokens.finder(processor.tokenizer)
    for number, turn in enumerate(prompt.messages):
        texts = ((f"messages.{number}.content", part["text"]) for part in turn["content"] if part["type"] == "text")
        special_tokens.refuse(texts, find)
    text = processor.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
    with _processor_lock:
        inputs = processor(text=[text], text_kwargs={"return_tensors": "pt"}, **images)
    job = Job(dict(inputs), sampling, **options)
    context = context_of(loaded)
    wanted = sampling.max_new_tokens or 1
    if context is not None and job.tokens + wanted > context:
        needed = f"the question takes {job.tokens} tokens and the answer may take {wanted}"
        raise ContextError(f"{needed}; the model has {context}")
    limit = sampling.limit if context is None else min(sampling.limit, context - job.tokens)
    return replace(job, sampling=replace(sampling, max_new_tokens=limit))


def context_of(loaded: Loaded) -> int | None:
    """Return the number of tokens that the model takes; None if its config does not say."""
    return getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)


def generate(loaded: Loaded, jobs: Sequence[Job]) -> list[Generation]:
    """Answer jobs in one batch."""
    inputs = {name: value.to(loaded.model.device) for name, value in _padded(loaded, jobs).items()}
    start = inputs["input_ids"].shape[1]
    rows = _Rows(loaded, jobs, start)
    longest = max(job.sampling.limit for job in jobs)
    with torch.no_grad():
        tokens = loaded.model.generate(
            **inputs,
            generation_config=generation_config(loaded, Sampling(longest)),
            logits_processor=LogitsProcessorList([_Sampler(jobs, loaded.model.device)]),
            stopping_criteria=StoppingCriteriaList([rows]),
        )
    return rows.finish(tokens[:, start:].tolist())


class _Sampler(LogitsProcessor):
    """Draws each row's next token from softmax(scores / temperature) with the row's own generator.

    Gumbel-max: the argmax of scores / T - log(E), E exponential with mean 1, has exactly that distribution (Gumbel
    1954), so the greedy search around it becomes sampling. Rows with temperature 0 pass through unchanged.
    """

    def __init__(self, jobs: Sequence[Job], device: torch.device) -> None:
        options = [job.sampling for job in jobs]
        self.temperatures = [one.temperature for one in options]
        self.generators = [torch.Generator(device).manual_seed(one.seed) for one in options]
        self.warpers = [TopPLogitsWarper(one.top_p) if one.top_p < 1 else None for one in options]

    def __call__(self, input_ids: Any, scores: torch.FloatTensor) -> torch.FloatTensor:
        scores_BV: Any = scores.clone()
        rows = zip(self.temperatures, self.generators, self.warpers, strict=True)
        for row, (temperature, generator, warper) in enumerate(rows):
            if temperature == 0:
                continue
            scaled_1V = scores_BV[row : row + 1].float() / temperature
            if warper is not None:
                scaled_1V = warper(input_ids[row : row + 1], scaled_1V)
            noise_1V = torch.empty_like(scaled_1V).exponential_(generator=generator)
            scores_BV[row] = (scaled_1V - noise_1V.log())[0].to(scores_BV.dtype)
        return scores_BV


class _Rows(StoppingCriteria):
    """Stops each row at its length limit, a stop text or a cancellation, and passes on its text."""

    def __init__(self, loaded: Loaded, jobs: Sequence[Job], start: int) -> None:
        self.loaded, self.jobs, self.start = loaded, jobs, start
        self.sent = [0] * len(jobs)
        self.done = [False] * len(jobs)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        rows = input_ids[:, self.start :].tolist()
        for k, (job, row) in enumerate(zip(self.jobs, rows, strict=True)):
            if self.done[k]:
                continue
            ended = len(row) >= job.sampling.limit or job.cancelled.is_set() or not is_truncated(self.loaded, row)
            if job.stop or job.on_text:
                text, stopped = cut_at_stop(decode(self.loaded, row), job.stop)
                ended |= stopped
                text = text if ended else _final_part(text, job.stop)
                if job.on_text is not None and len(text) > self.sent[k]:
                    job.on_text(text[self.sent[k] :])
                    self.sent[k] = len(text)
            self.done[k] = ended
        return torch.tensor(self.done, device=input_ids.device)  # pyright: ignore[reportReturnType]

    def finish(self, rows: Sequence[list[int]]) -> list[Generation]:
        """Return the text of each row up to its end; padding after it is dropped."""
        generations = []
        for job, row in zip(self.jobs, rows, strict=True):
            row = row[: job.sampling.limit]
            ends = (k for k, token in enumerate(row, 1) if not is_truncated(self.loaded, [token]))
            row = row[: next(ends, None)]
            text, stopped = cut_at_stop(decode(self.loaded, row), job.stop)
            if stopped:  # count the tokens after which the stop text is complete
                pieces = (row[:k] for k in range(1, len(row) + 1))
                row = next(piece for piece in pieces if cut_at_stop(decode(self.loaded, piece), job.stop)[1])
            generations.append(Generation(text, len(row), not stopped and is_truncated(self.loaded, row)))
        return generations


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop text in it, and whether there was one."""
    ends = [place for place in (text.find(one) for one in stop) if place >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def _final_part(text: str, stop: Sequence[str]) -> str:
    """Return the part of a growing text that will not change: no half character, no beginning of a stop text."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    held = max((k for one in stop for k in range(1, len(one)) if text.endswith(one[:k])), default=0)
    return text[: len(text) - held]


def _padded(loaded: Loaded, jobs: Sequence[Job]) -> dict[str, torch.Tensor]:
    """Join the inputs of all jobs: sequences padded on the left, images one after the other."""
    longest = max(job.tokens for job in jobs)
    pad = generation_config(loaded, Sampling()).pad_token_id
    parts: dict[str, list[torch.Tensor]] = {}
    for job in jobs:
        for name, value in job.inputs.items():
            if name == "input_ids" or name in _SEQUENCES:
                fill = pad if name == "input_ids" else 0
                value = torch.nn.functional.pad(value, (longest - job.tokens, 0), value=fill)
            parts.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in parts.items()}
