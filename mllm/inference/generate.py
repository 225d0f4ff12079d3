"""Samples to completions, with transformers' own `generate`: batched, greedy unless asked otherwise, in small steps.

Completions come out batch by batch, so that a program can write them down at once and go on after a stop. Batches are
planned over all samples before any is skipped: a run that goes on samples from the same batches, with the same random
seeds, as one that was never stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from mllm.errors import FieldmarkError
from mllm.inference import kv_cache
from mllm.io.images import open_image
from mllm.models import processors
from mllm.prompting import prompts
from mllm.prompting.completions import CompletionReader
from mllm.records import Completion, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.models.checkpoint import Loaded

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all) after each batch."""


def generate(
    loaded: Loaded,
    samples: Sequence[Sample],
    images_root: str | Path,
    *,
    style: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    skip: Collection[str] = (),
    progress: Progress | None = None,
) -> Iterator[Completion]:
    """Answer each sample once; completions come in batches of like size, not in the order of `samples`.

    Args:
        loaded: model, processor, family and convention (`mllm.models.checkpoint.load`).
        samples: what is asked; only `id`, `image`, `size` and `question` are looked at.
        images_root: the folder that `sample.image` is relative to.
        style: prompt style; None means the one saved beside the weights.
        max_new_tokens: room for one completion; those that fill it without ending are marked `truncated`.
        temperature: 0 is greedy; above 0 tokens are sampled, seeded for each batch.
        top_p: share of probability mass sampled from, with `temperature` above 0.
        seed: of the sampling. The caller's random state is left as it was.
        batch_size: samples answered at once.
        skip: ids that are already answered.
        progress: told after each batch.
    """
    _check(max_new_tokens, temperature, top_p, batch_size)
    style = style or loaded.convention.prompt
    opening = processors.opened(loaded.processor, style)
    reader = CompletionReader(loaded.family, loaded.convention.budget, opening)
    skip = set(skip)
    done = sum(sample.id in skip for sample in samples)
    for batch in plan(loaded, samples, batch_size):
        wanted = [sample.id for sample in batch if sample.id not in skip]
        if not wanted:
            continue
        if temperature == 0:  # no randomness that the rest of the batch could share
            batch = [sample for sample in batch if sample.id not in skip]
        conversations = [prompts.messages(sample, style, system=loaded.convention.system) for sample in batch]
        inputs = encode(loaded, conversations, [open_image(Path(images_root) / sample.image) for sample in batch])
        config = settings(loaded, max_new_tokens, temperature, top_p)
        rows = write(loaded, inputs, config, seed=_seed(seed, batch))
        for sample, row in zip(batch, rows, strict=True):
            if sample.id not in skip:
                yield reader.read(sample, decode(loaded, row), tokens=len(row), truncated=is_truncated(loaded, row))
        done += len(wanted)
        if progress is not None:
            progress(done, len(samples))


def plan(loaded: Loaded, samples: Sequence[Sample], batch_size: int) -> list[list[Sample]]:
    """Cut the samples into batches of like length, the longest first (so that memory runs out at once or never)."""

    def length(sample: Sample) -> tuple[int, int, str]:
        visual = loaded.family.visual_tokens(sample.size, loaded.convention.budget)
        return -visual, -len(sample.question), sample.id

    ordered = sorted(samples, key=length)
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def encode(loaded: Loaded, conversations: Sequence[list[dict[str, Any]]], images: Sequence[Image]) -> dict[str, Any]:
    """Build inputs on the model's device: chat template, images within the convention's budget, left padding.

    Args:
        loaded: model and processor.
        conversations: messages of each row (`mllm.prompting.prompts.messages`), with one image each.
        images: one RGB image for each row.
    """
    processor = loaded.processor
    inputs = processor(
        text=[processor.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations],
        images=[[image] for image in images],
        text_kwargs={"padding": True, "padding_side": "left", "return_tensors": "pt"},
        images_kwargs={"size": loaded.convention.budget.size, "return_tensors": "pt"},
    )
    return {name: value.to(loaded.model.device) for name, value in inputs.items()}


def write(
    loaded: Loaded, inputs: dict[str, Any], config: GenerationConfig, *, seed: int = 0, streamer: Any = None
) -> list[list[int]]:
    """Let the model write, and return each row's new tokens up to and with its end token.

    `streamer` is one of transformers', for a single row.
    """
    with _ready(loaded.model, seed):
        cache = kv_cache.empty(loaded.model.config)
        tokens = loaded.model.generate(**inputs, generation_config=config, streamer=streamer, past_key_values=cache)
    ends = _ends(loaded)
    rows = tokens[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: next((k + 1 for k, token in enumerate(row) if token in ends), None)] for row in rows]


def decode(loaded: Loaded, row: Sequence[int]) -> str:
    """Return the text of written tokens as the RL trainer reads it: special tokens left out, nothing tidied up."""
    return loaded.processor.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def is_truncated(loaded: Loaded, row: Sequence[int]) -> bool:
    """Whether a row ran out of room before it came to its end."""
    return row[-1] not in _ends(loaded)


def suppressed(processor: Any) -> list[int]:
    """Return the tokens a model must never write, since an image would be looked for behind them."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {getattr(processor, name, None) for name in names}
    return sorted(number for number in ids if number is not None)


def settings(loaded: Loaded, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0) -> GenerationConfig:
    """Build transformers' settings from ours alone: a checkpoint's own defaults would change results unseen."""
    own = loaded.model.generation_config
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        eos_token_id=_ends(loaded),
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else loaded.processor.tokenizer.pad_token_id,
        suppress_tokens=suppressed(loaded.processor) or None,
        use_cache=True,
        **sampling,
    )


def _ends(loaded: Loaded) -> list[int]:
    """Return the tokens that end a completion."""
    ends = loaded.model.generation_config.eos_token_id
    if ends is None:
        ends = loaded.processor.tokenizer.eos_token_id
    return list(ends) if isinstance(ends, list | tuple) else [ends]


@contextmanager
def _ready(model: Any, seed: int) -> Iterator[None]:
    """Put the model in evaluation mode with its own random state; leave both as they were."""
    training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            yield
    finally:
        if training:
            model.train()


def _seed(seed: int, batch: Sequence[Sample]) -> int:
    """Return a seed of the batch's own, the same in every process and on every day."""
    name = "\n".join([str(seed), *(sample.id for sample in batch)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


def _check(max_new_tokens: int, temperature: float, top_p: float, batch_size: int) -> None:
    """Refuse settings without meaning."""
    if max_new_tokens < 1 or batch_size < 1:
        raise FieldmarkError(f"max_new_tokens and batch_size must be at least 1, got {max_new_tokens} and {batch_size}")
    if temperature < 0 or not 0 < top_p <= 1:
        raise FieldmarkError(f"temperature must be >= 0 and top_p in (0, 1], got {temperature} and {top_p}")
