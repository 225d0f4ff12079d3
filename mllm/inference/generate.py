"""Generate completions with transformers: in batches, greedy by default, resumable.

Batches are planned over all samples before any is skipped, so a resumed run samples the same batches and seeds.
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
from mllm.inference.sampling import Sampling
from mllm.io.images import open_image
from mllm.models.processors import template_opening
from mllm.prompting import prompts, special_tokens
from mllm.prompting.tasks import CompletionReader
from mllm.records import Completion, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.models.checkpoint import Loaded

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all) after each batch."""

NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0,
    "num_beams": 1, "num_return_sequences": 1, "length_penalty": 1.0, "guidance_scale": 1.0,
}  # fmt: skip
NEUTRAL_SAMPLING: dict[str, Any] = {"min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
"""Settings of transformers that change nothing, in the place of a checkpoint's own."""


def generate(
    loaded: Loaded,
    samples: Sequence[Sample],
    images_root: str | Path,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    *,
    style: str | None = None,
    batch_size: int = 32,
    skip: Collection[str] = (),
    progress: Progress | None = None,
) -> Iterator[Completion]:
    """Generate one completion per sample. They are yielded in length-sorted batches, not in the order of `samples`.

    Only `id`, `image` (relative to `images_root`), `size` and `question` of the samples are used. Batches get seeds
    derived from `sampling.seed`. `style` None is the prompt style saved beside the weights. `skip` are the ids of
    samples that already have a completion; `progress` is called after each batch.
    """
    if batch_size < 1:
        raise FieldmarkError(f"batch_size must be at least 1, got {batch_size}")
    style = style or loaded.convention.prompt
    reader = CompletionReader(loaded.family, loaded.convention.budget, template_opening(loaded.processor))
    special_tokens.refuse_questions(samples, style, loaded.processor.tokenizer)
    skip = set(skip)
    done = sum(sample.id in skip for sample in samples)
    config = generation_config(loaded, sampling)
    for batch in length_sorted_batches(loaded, samples, batch_size):
        wanted = [sample for sample in batch if sample.id not in skip]
        if not wanted:
            continue
        if sampling.temperature == 0:  # sampled batches stay complete: their rows share one random generator
            batch = wanted
        conversations = [prompts.messages(sample, style, system=loaded.convention.system) for sample in batch]
        inputs = encode(loaded, conversations, [open_image(Path(images_root) / sample.image) for sample in batch])
        rows = generate_tokens(loaded, inputs, config, seed=_batch_seed(sampling.seed, batch))
        for sample, row in zip(batch, rows, strict=True):
            if sample.id not in skip:
                yield reader.read(sample, decode(loaded, row), tokens=len(row), truncated=is_truncated(loaded, row))
        done += len(wanted)
        if progress is not None:
            progress(done, len(samples))


def length_sorted_batches(loaded: Loaded, samples: Sequence[Sample], batch_size: int) -> list[list[Sample]]:
    """Split the samples into batches of similar length, longest first, so that memory runs out at once or never."""
    budget = loaded.convention.budget
    visual = {sample.size: loaded.family.visual_tokens(sample.size, budget) for sample in samples}
    ordered = sorted(samples, key=lambda one: (-visual[one.size], -len(one.question), one.id))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def encode(loaded: Loaded, conversations: Sequence[list[dict[str, Any]]], images: Sequence[Image]) -> dict[str, Any]:
    """Build inputs on the model's device: chat template, images within the convention's budget, left padding.

    `conversations` are the messages of each row (`mllm.prompting.prompts.messages`), `images` their one RGB image.
    """
    processor = loaded.processor
    inputs = processor(
        text=[processor.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations],
        images=[[image] for image in images],
        text_kwargs={"padding": True, "padding_side": "left", "return_tensors": "pt"},
        images_kwargs={"size": loaded.convention.budget.size, "return_tensors": "pt"},
    )
    return {name: value.to(loaded.model.device) for name, value in inputs.items()}


def generate_tokens(
    loaded: Loaded, inputs: dict[str, Any], config: GenerationConfig, *, seed: int = 0
) -> list[list[int]]:
    """Return the new tokens of each row, its end token included."""
    with _evaluating(loaded.model, seed):
        cache = {kv_cache.ARGUMENT: kv_cache.preallocated(loaded.model.config)}
        tokens = loaded.model.generate(**inputs, generation_config=config, **cache)
    ends = _end_tokens(loaded)
    rows = tokens[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: next((k + 1 for k, token in enumerate(row) if token in ends), None)] for row in rows]


def decode(loaded: Loaded, row: Sequence[int]) -> str:
    """Return the text of generated tokens without special tokens, decoded as the RL trainer decodes it."""
    return loaded.processor.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def is_truncated(loaded: Loaded, row: Sequence[int]) -> bool:
    """Whether a row stopped without an end token."""
    return row[-1] not in _end_tokens(loaded)


def suppressed_tokens(processor: Any) -> list[int]:
    """Return the image and vision tokens, which must not be generated: the model would expect an image there."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {getattr(processor, name, None) for name in names}
    return sorted(number for number in ids if number is not None)


def generation_config(loaded: Loaded, sampling: Sampling) -> GenerationConfig:
    """Build transformers' config from `sampling` alone: what is left out here, transformers takes from the checkpoint's
    generation_config.json, which would silently change results (and not those of training's rollouts)."""
    own = loaded.model.generation_config
    sampled = sampling.temperature > 0
    drawn = NEUTRAL_SAMPLING | {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=sampling.limit,
        do_sample=sampled,
        eos_token_id=_end_tokens(loaded),
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else loaded.processor.tokenizer.pad_token_id,
        suppress_tokens=suppressed_tokens(loaded.processor) or None,
        use_cache=True,
        **(NEUTRAL | (drawn if sampled else {})),
    )


def _end_tokens(loaded: Loaded) -> list[int]:
    ends = loaded.model.generation_config.eos_token_id
    if ends is None:
        ends = loaded.processor.tokenizer.eos_token_id
    return list(ends) if isinstance(ends, list | tuple) else [ends]


@contextmanager
def _evaluating(model: Any, seed: int) -> Iterator[None]:
    """Put the model in evaluation mode with a random state of its own; restore both afterwards."""
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


def _batch_seed(seed: int, batch: Sequence[Sample]) -> int:
    """Derive a seed from the run's seed and the batch's ids; it is the same in every process."""
    name = "\n".join([str(seed), *(sample.id for sample in batch)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
