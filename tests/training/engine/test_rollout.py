"""Sampling from a prompt that was read once gives the tokens that reading it for each completion gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from mllm.training.engine import shared_prefix
from mllm.training.engine.rollout import prefilled_once
from tests.training import tiny

SOURCE = [0, 0, 0, 1, 1, 2]


def prompts(model: Any, groups: list[tuple[int, int, list[int]]]) -> dict[str, Any]:
    """Prompts alone, one row each, as TRL hands them to `generate`."""
    batch = tiny.batch(model, groups)
    space = batch.pop("logits_to_keep")
    counts = batch.pop("num_images", None)
    cut = {k: v[:, :-space] for k, v in batch.items() if k in ("input_ids", "attention_mask", "mm_token_type_ids")}
    return batch | cut | ({"counts": counts} if counts else {})


def sample(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    config = GenerationConfig(
        max_new_tokens=6, do_sample=True, temperature=0.8, top_k=0, pad_token_id=0, eos_token_id=[1, *range(3, 9)],
        suppress_tokens=[tiny.IMAGE],
    )  # fmt: skip
    torch.manual_seed(11)
    with torch.no_grad():
        return model.generate(**inputs, generation_config=config)


@pytest.mark.parametrize(
    ("family", "frozen"),
    [*((family, frozen) for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl") for frozen in (False, True)),
     ("internvl", False), ("qwen3", False)],
)  # fmt: skip
def test_same_tokens(family: str, frozen: bool) -> None:
    model = tiny.build(family)
    images = (0, 0, 0) if family == "qwen3" else (1, 2, 1) if family == "internvl" else (1, 2, 0)
    groups = [(words, count, [1]) for words, count in zip((5, 9, 3), images, strict=True)]
    once = prompts(model, groups)
    counts = once.pop("counts", None)
    each = _repeated(once, counts)
    imgs = None
    if frozen:
        core = shared_prefix.multimodal_core(model)
        imgs = shared_prefix.encode(core, once["pixel_values"], once["image_grid_thw"])
    expected = sample(model, each)
    with prefilled_once(model, SOURCE, imgs):
        found = sample(model, once)
    assert "generate" not in vars(model)
    assert found.tolist() == expected.tolist()
    new = expected[:, once["input_ids"].shape[1] :]
    assert len({tuple(row) for row in new.tolist()}) > 3, "completions differ"


def _repeated(once: dict[str, Any], counts: list[int] | None) -> dict[str, Any]:
    """Rows of `once` by SOURCE, with a copy of its images for each."""
    index = torch.tensor(SOURCE)
    found = {k: v[index] for k, v in once.items() if k in ("input_ids", "attention_mask", "mm_token_type_ids")}
    if counts is None:
        return found
    ends = torch.tensor([0, *counts]).cumsum(0).tolist()
    chosen = [image for row in SOURCE for image in range(ends[row], ends[row + 1])]
    if "image_grid_thw" in once:
        blocks = torch.split(once["pixel_values"], once["image_grid_thw"].prod(-1).tolist())
        found["image_grid_thw"] = once["image_grid_thw"][chosen]
        found["pixel_values"] = torch.cat([blocks[image] for image in chosen])
    else:
        found["pixel_values"] = once["pixel_values"][chosen]
    return found
