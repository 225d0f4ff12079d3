"""Generate completions with vLLM: the same prompts, image budget and parsing as `mllm.inference.generate`.

Where two tokens are almost equally likely the engines may differ, so a folder of outputs holds those of one engine.
"""

from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from mllm.errors import FieldmarkError
from mllm.inference.generate import Progress, suppressed_tokens
from mllm.inference.sampling import Sampling
from mllm.io.images import open_image
from mllm.models.checkpoint import Checkpoint
from mllm.models.processors import template_opening
from mllm.prompting import special_tokens
from mllm.prompting.conversations import conversation
from mllm.prompting.tasks import CompletionReader
from mllm.records import Completion, Sample

CHUNK = 256
"""Samples per call of vLLM. A killed run loses at most this many completions."""


def generate(
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    images_root: Path,
    sampling: Sampling,
    *,
    dtype: str,
    style: str | None = None,
    skip: Collection[str] = (),
    progress: Progress | None = None,
) -> Iterator[Completion]:
    """Generate one completion per sample, as `mllm.inference.generate.generate` does; vLLM forms the batches itself.

    Raises FieldmarkError: vLLM is not installed.
    """
    if find_spec("vllm") is None:
        raise FieldmarkError("vllm is not installed: `pip install fieldmark[vllm]`, or leave out --engine vllm")
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
    params = vllm.SamplingParams(
        max_tokens=sampling.limit,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        logit_bias={token: -100.0 for token in suppressed_tokens(checkpoint.processor)} or None,
    )
    style = style or checkpoint.convention.prompt
    reader = CompletionReader(checkpoint.family, checkpoint.convention.budget, template_opening(checkpoint.processor))
    special_tokens.refuse_questions(samples, style, checkpoint.processor.tokenizer)
    missing = [sample for sample in samples if sample.id not in set(skip)]
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        requests = []
        for sample in chunk:
            turns = conversation(sample, checkpoint.convention, style)
            text = checkpoint.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            images = {"image": open_image(images_root / sample.image)}
            requests.append({"prompt": text, "multi_modal_data": images})
        for sample, output in zip(chunk, model.generate(requests, params, lora_request=adapter), strict=True):
            first = output.outputs[0]
            truncated = first.finish_reason == "length"
            yield reader.read(sample, first.text, tokens=len(first.token_ids), truncated=truncated)
        if progress is not None:
            progress(len(samples) - len(missing) + start + len(chunk), len(samples))
