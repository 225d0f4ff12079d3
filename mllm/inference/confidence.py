"""How sure a model is of its answer: the mean probability of the answer's tokens by the model, not calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mllm.inference.generate import encode
from mllm.models.processors import template_opening
from mllm.prompting.conversations import conversation
from mllm.records import Completion, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from mllm.models.checkpoint import Loaded


def of_answer(
    loaded: Loaded, sample: Sample, image: Image, completion: Completion, style: str | None = None
) -> float | None:
    """Return exp(mean log p(token)) over the tokens of the answer, 0..1; None for a text without a readable answer.

    This is the geometric mean of p(token | image, question, thought, answer so far), at temperature 1: the answer alone
    counts, so a long thought does not lower it, but it is given the thought, which may have gone wrong before. The text
    is tokenized again and read in one pass, whoever wrote it. `style` is the prompt style that the sample was asked in.
    """
    answer = (completion.answer.answer or "").strip()
    if completion.answer.problem is not None or not answer:
        return None
    opening, text = template_opening(loaded.processor), completion.text
    # What the template wrote is part of the prompt; a thought that was left empty is closed.
    text = text.removeprefix(opening) if text.startswith(opening) else f"</think>{text}"
    tokens = loaded.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    start = text.rfind(answer)
    spans = enumerate(tokens["offset_mapping"])
    inside = [place for place, (a, b) in spans if a < start + len(answer) and b > max(start, a)]
    inputs = encode(loaded, [conversation(sample, loaded.convention, style)], [image])
    written = torch.tensor([tokens["input_ids"]], device=inputs["input_ids"].device)
    prompt = inputs["input_ids"].shape
    for name, value in inputs.items():
        if value.shape == prompt:  # one value a token: its id, whether it counts, whether it is of an image
            new = written if name == "input_ids" else torch.full_like(written, int(name == "attention_mask"))
            inputs[name] = torch.cat([value, new.to(value.dtype)], dim=1)
    with torch.no_grad():
        logits_TV = loaded.model(**inputs, use_cache=False, logits_to_keep=written.shape[1] + 1).logits[0, :-1].float()
    logps_T = logits_TV.log_softmax(-1).gather(-1, written[0, :, None])[:, 0]
    return float(logps_T[inside].mean().exp())
