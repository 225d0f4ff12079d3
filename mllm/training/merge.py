"""`fieldmark merge`: turns a training checkpoint into plain weights, with adapters merged and ZeRO shards joined.

The logits of one question with an image are compared before merging, after it, and once more after the written model
has been loaded from disk.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mllm.errors import FieldmarkError
from mllm.inference import generate
from mllm.io.files import atomic_folder
from mllm.io.safe_pickle import UnpicklingError
from mllm.models.checkpoint import Checkpoint, Loaded, LoadOptions, load, open_checkpoint
from mllm.models.families import write_convention
from mllm.training import model_card

logger = logging.getLogger(__name__)

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest difference of a logit due to rounding, as a share of the largest logit, by the type of the weights."""

WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""Environment variable that makes `torch.load` refuse code in pickles, whatever its caller asks for."""


@dataclass(frozen=True)
class Merged:
    """The result of a merge. Differences are of logits, as shares of the largest one.

    merged: after merging against before. saved: loaded from disk against merged. quantized: against the base in 4 bits
    that the adapter was trained on (what merging into the full base changes); None if that was not asked for.
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
    """Write a checkpoint as one full model of plain safetensors.

    Args:
        name: a run's folder, `best`, or `checkpoint-N`: full weights, an adapter, or DeepSpeed's shards.
        folder: where to write; must not exist.
        dtype: number format of the written weights.
        masters: use DeepSpeed's float32 master weights, not the copies that it computes with.
        quantized: the adapter was trained on a base in 4 bits: also measure how far that model is away.

    Raises:
        FieldmarkError: nothing to load; the target exists; master weights are requested but there are no shards; logits
            differ by more than rounding (then the target is removed).
    """
    if folder.exists():
        raise FieldmarkError(f"{folder} exists already; choose a new folder")
    checkpoint = open_checkpoint(name)
    has_weights = checkpoint.adapter is not None or any(Path(checkpoint.base).glob("*.safetensors"))
    shards = masters or not has_weights
    loaded = _from_shards(checkpoint, name) if shards else load(checkpoint)
    before = logits(loaded)
    distance = _distance(logits(load(checkpoint, LoadOptions(quantize="4bit"))), before) if quantized else None
    model = loaded.model.merge_and_unload(safe_merge=True) if checkpoint.adapter is not None else loaded.model
    loaded = replace(loaded, model=model.to(getattr(torch, dtype)))
    found = logits(loaded)
    merged = _close(before, found, TOLERANCE[dtype], f"{name}: merging changed the model")
    with atomic_folder(folder) as fresh:
        model.save_pretrained(fresh)
        loaded.processor.save_pretrained(fresh)
        write_convention(fresh, loaded.convention)
        what = "adapter and base" if checkpoint.adapter is not None else "shards" if shards else "weights"
        model_card.copy_card(name, fresh, f"Made from {what} by `fieldmark merge`, in {dtype}; logits were compared.")
        back = logits(load(fresh, LoadOptions(dtype)))
        # Below float32 the cast in memory also rounded what is never saved: the rotary frequencies.
        rounding = 1e-6 if dtype == "float32" else TOLERANCE[dtype]
        saved = _close(found, back, rounding, f"{folder}: the written model differs from the merged one")
    return Merged(folder, checkpoint.adapter is not None, shards, merged, saved, distance)


def logits(loaded: Loaded) -> torch.Tensor:
    """Return a model's logits for a drawn image and a question: (tokens, vocabulary), float32."""
    from PIL import Image

    content = [{"type": "image"}, {"type": "text", "text": "Find the bird in the image."}]
    image = Image.linear_gradient("L").convert("RGB").resize((160, 128))
    image.paste((200, 30, 60), (40, 30, 110, 90))
    inputs = generate.encode(loaded, [[{"role": "user", "content": content}]], [image])
    with torch.no_grad():
        return loaded.model.eval()(**inputs).logits[0].float()


def _from_shards(checkpoint: Checkpoint, name: Path) -> Loaded:
    """Join the float32 master weights that DeepSpeed's processes wrote into a checkpoint."""
    if not (name / "latest").is_file():
        raise FieldmarkError(f"{name}: neither weights nor shards of DeepSpeed (no file `latest`) to join")
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    try:
        with _plain_pickles():
            weights = get_fp32_state_dict_from_zero_checkpoint(str(name))
    except UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = named[1] if named else "no pickle of torch"
        raise FieldmarkError(
            f"{name}: its shards hold more than the tensors and counters of DeepSpeed ({what}), "
            "which could run code, so they are not read. Those of your own run can be joined by the zero_to_fp32.py "
            "that DeepSpeed wrote beside them"
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise FieldmarkError(f"{name}: its shards cannot be joined; one may be missing: {error}") from error
    if checkpoint.adapter is not None:
        loaded = load(checkpoint)
    else:
        from transformers import AutoConfig, AutoModelForImageTextToText

        config = AutoConfig.from_pretrained(checkpoint.base, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
        loaded = Loaded(model, checkpoint.processor, checkpoint.family, checkpoint.convention)
    result = loaded.model.load_state_dict(dict(weights or {}), strict=False)
    missing = [key for key in result.missing_keys if key not in (loaded.model._tied_weights_keys or ())]
    if checkpoint.adapter is not None:  # the base is not trained, and not in the shards
        missing = [key for key in result.missing_keys if "lora_" in key]
    if wrong := [*result.unexpected_keys, *missing]:
        raise FieldmarkError(f"{name}: its shards do not match its config.json: {len(wrong)} weights ({wrong[0]}, ...)")
    return replace(loaded, model=loaded.model.eval())


@contextmanager
def _plain_pickles() -> Iterator[None]:
    """Let `torch.load` read only tensors, containers and DeepSpeed's counters. DeepSpeed asks it for everything, which
    would run code in a pickle."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get(WEIGHTS_ONLY)
    os.environ[WEIGHTS_ONLY] = "1"
    try:
        with torch.serialization.safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        os.environ.pop(WEIGHTS_ONLY) if before is None else os.environ.update({WEIGHTS_ONLY: before})


def _close(before: torch.Tensor, after: torch.Tensor, tolerance: float, message: str) -> float:
    """Return the distance of two logits; raise if it is more than rounding."""
    distance = _distance(before, after)
    if not distance <= tolerance:  # also NaN
        raise FieldmarkError(
            f"{message}: logits differ by {distance:.2g} of the largest; rounding explains at most {tolerance:g}"
        )
    return distance


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference of two logits as a share of the largest."""
    return ((one - other).abs().max() / one.abs().max().clamp(min=1e-12)).item()
