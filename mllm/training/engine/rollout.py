"""Samples several completions of a prompt after one prefill, whose cache they share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mllm.inference.kv_cache import ARGUMENT, preallocate
from mllm.training.engine import shared_prefix
from mllm.training.engine.shared_prefix import Image


@contextmanager
def prefilled_once(model: Any, source: Sequence[int], images: Sequence[Image] | None) -> Iterator[None]:
    """Within it, `model.generate` reads each row of its inputs once and writes a completion for each item of `source`.

    `model` is unwrapped; `source` has, for each completion, the input row that is its prompt; `images` are the inputs'
    images in order, encoded by the vision tower (None runs the tower).
    """
    stock, own = model.generate, vars(model).get("generate")

    def generate(**inputs: Any) -> torch.Tensor:
        index = torch.tensor(source, device=inputs["input_ids"].device)
        prepared = _prefill(model, inputs, index, images)
        return stock(**prepared, generation_config=inputs["generation_config"])

    model.generate = generate
    try:
        yield
    finally:
        del model.generate  # uncovers the class's own method
        if own is not None:
            model.generate = own


def _prefill(model: Any, inputs: dict[str, Any], index: torch.Tensor, images: Sequence[Image] | None) -> dict[str, Any]:
    """Read all prompts but their last token, and return the inputs with which `generate` continues.

    Shapes: U prompts of P tokens (padded left) become B rows, `index` (B,) into the prompts.
    """
    ids_UP, mask_UP = inputs["input_ids"], inputs["attention_mask"]
    core = shared_prefix.multimodal_core(model)
    places, shift_U1 = shared_prefix.padded_positions(core, inputs)
    if core is not None and hasattr(core, "get_rope_index"):
        core.rope_deltas = shift_U1[index]  # read by `generate` when it continues from a cache
    if images is not None:
        seen = shared_prefix.encoded(images)
    else:
        seen = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
    out = model(
        input_ids=ids_UP[:, :-1],
        attention_mask=mask_UP[:, :-1],
        position_ids=places[..., :-1],
        use_cache=True,
        logits_to_keep=1,
        **seen,
    )
    cache = out.past_key_values
    cache.batch_select_indices(index)
    return {"input_ids": ids_UP[index], "attention_mask": mask_UP[index], ARGUMENT: preallocate(cache)}
