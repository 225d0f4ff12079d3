"""What training leaves -> weights that anyone can load: adapters merged, ZeRO shards joined, nothing else changed.

The model is asked the same question, image included, before it is merged, afterwards, and once more when it has been
read back from the disk. `fieldmark merge` is the command.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mllm.errors import FieldmarkError
from mllm.inference import generate
from mllm.models.checkpoint import Checkpoint, Loaded, LoadOptions, load, open_checkpoint
from mllm.models.families import write_convention
from mllm.training import model_card

logger = logging.getLogger(__name__)

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest difference of a logit that rounding explains, as a share of the largest logit, by the type of the weights."""


@dataclass(frozen=True)
class Merged:
    """What came of it. Differences are of logits, as shares of the largest one.

    merged: after merging against before. saved: read back from the disk against merged. quantized: against the base in
    4 bits, where the adapter was trained on one (what merging into the whole base changes); None elsewhere.
    """

    folder: Path
    adapter: bool
    shards: bool
    merged: float
    saved: float
    quantized: float | None


def merge(
    name: Path, folder: Path, *, dtype: str = "float32", masters: bool = False, quantized: bool = False
) -> Merged:
    """Write a checkpoint as one whole model of plain safetensors.

    Args:
        name: a run's folder, `best`, or `checkpoint-N`: whole weights, an adapter, or DeepSpeed's shards.
        folder: where to; must not exist.
        dtype: number format of what is written.
        masters: take DeepSpeed's float32 masters, not the copies that it computes with (alike in a float32 run).
        quantized: the adapter was trained on a base in 4 bits: also say how far that one is away.

    Raises:
        FieldmarkError: nothing to load; the target exists; no shards where masters are asked for; logits that differ
            by more than rounding (nothing is left in the target then).
    """
    if folder.exists():
        raise FieldmarkError(f"{folder} exists already; name a new folder")
    checkpoint = open_checkpoint(name)
    whole = checkpoint.adapter is not None or any(Path(checkpoint.base).glob("*.safetensors"))
    shards = masters or not whole
    loaded = _from_shards(checkpoint, name) if shards else load(checkpoint)
    before = logits(loaded)
    distance = _distance(logits(load(checkpoint, LoadOptions(quantize="4bit"))), before) if quantized else None
    model = loaded.model.merge_and_unload(safe_merge=True) if checkpoint.adapter is not None else loaded.model
    loaded = replace(loaded, model=model.to(getattr(torch, dtype)))
    found = logits(loaded)
    merged = _close(before, found, TOLERANCE[dtype], f"{name}: merging changed what the model says")
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        model.save_pretrained(fresh)
        loaded.processor.save_pretrained(fresh)
        write_convention(fresh, loaded.convention)
        if Path(name).is_dir():
            what = "adapter and base" if checkpoint.adapter is not None else "shards" if shards else "weights"
            model_card.keep(
                Path(name), fresh, f"Made of {what} by `fieldmark merge`, in {dtype}; logits were compared."
            )
        back = logits(load(fresh, LoadOptions(dtype)))
        # Below float32 the cast in memory also rounded what is never saved: the frequencies of the positions.
        rounding = 1e-6 if dtype == "float32" else TOLERANCE[dtype]
        saved = _close(found, back, rounding, f"{folder}: what was written does not say what was merged")
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Merged(folder, checkpoint.adapter is not None, shards, merged, saved, distance)


def logits(loaded: Loaded) -> torch.Tensor:
    """Return what a model says to a drawn image and a question: (tokens, vocabulary), float32."""
    from PIL import Image

    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Find the bird in the image."}]}]
    image = Image.linear_gradient("L").convert("RGB").resize((160, 128))
    image.paste((200, 30, 60), (40, 30, 110, 90))
    inputs = generate.encode(loaded, [asked], [image])
    with torch.no_grad():
        return loaded.model.eval()(**inputs).logits[0].float()


def _from_shards(checkpoint: Checkpoint, name: Path) -> Loaded:
    """Join the float32 masters that DeepSpeed's processes wrote into a checkpoint of ours.

    They are pickles of tensors and counters: read only where training wrote them, never from strangers.
    """
    if not (name / "latest").is_file():
        raise FieldmarkError(f"{name}: no weights, and no shards of DeepSpeed (no file `latest`) to join")
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    try:
        weights = get_fp32_state_dict_from_zero_checkpoint(str(name))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise FieldmarkError(f"{name}: its shards cannot be joined, perhaps one is missing: {error}") from error
    if checkpoint.adapter is not None:
        loaded = load(checkpoint)
    else:
        from transformers import AutoConfig, AutoModelForImageTextToText

        config = AutoConfig.from_pretrained(checkpoint.base, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
        loaded = Loaded(model, checkpoint.processor, checkpoint.family, checkpoint.convention)
    told = loaded.model.load_state_dict(dict(weights or {}), strict=False)
    if checkpoint.adapter is not None:  # the base is not trained, and not in the shards
        lacking = [key for key in told.missing_keys if "lora_" in key]
    else:
        lacking = [key for key in told.missing_keys if key not in (loaded.model._tied_weights_keys or ())]
    if told.unexpected_keys or lacking:
        wrong = [*told.unexpected_keys, *lacking]
        raise FieldmarkError(f"{name}: its shards do not fit its config.json: {len(wrong)} weights ({wrong[0]}, ...)")
    return replace(loaded, model=loaded.model.eval())


def _close(before: torch.Tensor, after: torch.Tensor, tolerance: float, message: str) -> float:
    """Return the distance of two logits; raise when it is no rounding."""
    distance = _distance(before, after)
    if not distance <= tolerance:  # NaN too
        raise FieldmarkError(
            f"{message}: logits differ by {distance:.2g} of the largest; at most {tolerance:g} is rounding"
        )
    return distance


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference of two logits as a share of the largest."""
    return ((one - other).abs().max() / one.abs().max().clamp(min=1e-12)).item()
