"""Samples to completions with vLLM, where it is installed: the same prompts, budget and reading as `mllm.inference.generate`.

Answers may differ from transformers' in the last token of a tie; a folder of outputs holds those of one engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.inference.generate import suppressed
from mllm.io.images import open_image
from mllm.models import processors
from mllm.models.checkpoint import Checkpoint
from mllm.prompting import prompts
from mllm.prompting.completions import CompletionReader
from mllm.records import Completion, Sample

CHUNK = 256
"""Samples handed over at once: so many answers may be lost when a run is killed."""


def generate(
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    images_root: Path,
    *,
    dtype: str,
    style: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    skip: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Completion]:
    """Answer each sample once, as `mllm.inference.generate.generate` does; vLLM batches and sorts by itself.

    Raises:
        FieldmarkError: vLLM is not installed.
    """
    if find_spec("vllm") is None:
        raise FieldmarkError("vllm is not installed: `pip install fieldmark[vllm]`, or leave --engine vllm out")
    import vllm  # pyright: ignore[reportMissingImports]
    from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

    model = vllm.LLM(
        model=checkpoint.base,
        dtype=dtype,
        limit_mm_per_prompt={"image": 1},
        mm_processor_kwargs={"size": checkpoint.convention.budget.size},
        enable_lora=checkpoint.adapter is not None,
    )
    adapter = LoRARequest("adapter", 1, checkpoint.adapter) if checkpoint.adapter else None
    ids = suppressed(checkpoint.processor)
    settings = vllm.SamplingParams(
        max_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        logit_bias={number: -100.0 for number in ids} or None,
    )
    opening = processors.opened(checkpoint.processor, style or checkpoint.convention.prompt)
    reader = CompletionReader(checkpoint.family, checkpoint.convention.budget, opening)
    left = [sample for sample in samples if sample.id not in set(skip)]
    for start in range(0, len(left), CHUNK):
        chunk = left[start : start + CHUNK]
        prompted = [_prompt(checkpoint, sample, images_root, style) for sample in chunk]
        for sample, output in zip(chunk, model.generate(prompted, settings, lora_request=adapter), strict=True):
            written = output.outputs[0]
            truncated = written.finish_reason == "length"
            yield reader.read(sample, written.text, tokens=len(written.token_ids), truncated=truncated)
        if progress is not None:
            progress(len(samples) - len(left) + start + len(chunk), len(samples))


def _prompt(checkpoint: Checkpoint, sample: Sample, root: Path, style: str | None) -> dict[str, Any]:
    """Return one request: the chat template's text, and the image."""
    convention = checkpoint.convention
    conversation = prompts.messages(sample, style or convention.prompt, system=convention.system)
    text = checkpoint.processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return {"prompt": text, "multi_modal_data": {"image": open_image(root / sample.image)}}
