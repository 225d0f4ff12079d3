"""Tiny random-weight models of each family, and groups of completions to score with them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

IMAGE = 90
TEXT: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
MARKS = {"image_token_id": IMAGE, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}


def build(family: str, *, tied: bool = True, seed: int = 0) -> Any:
    """A model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = _MAKERS[family](tied).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)  # far from zero, so that a wrong mask or position shows
    return model


def _qwen2_vl(tied: bool) -> Any:
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4}
    config = Qwen2VLConfig(
        text_config=TEXT | {"rope_parameters": ROPE}, vision_config=vision, tie_word_embeddings=tied, **MARKS
    )
    return Qwen2VLForConditionalGeneration(config)


def _qwen2_5_vl(tied: bool) -> Any:
    vision = {
        "depth": 2, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 24, "patch_size": 4,
        "fullatt_block_indexes": [1], "window_size": 16,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=TEXT | {"rope_parameters": ROPE}, vision_config=vision, tie_word_embeddings=tied, **MARKS
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(tied: bool) -> Any:
    vision = {
        "depth": 2, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 24, "patch_size": 4,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    text = TEXT | {"rope_parameters": ROPE | {"mrope_interleaved": True}, "tie_word_embeddings": tied}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **MARKS)
    return Qwen3VLForConditionalGeneration(config)


def _internvl(tied: bool) -> Any:
    text = {key: value for key, value in TEXT.items() if key != "head_dim"} | {"model_type": "qwen2"}
    vision = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "image_size": [8, 8], "patch_size": [2, 2],
    }  # fmt: skip
    config = InternVLConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE, image_seq_length=4, tie_word_embeddings=tied
    )
    return InternVLForConditionalGeneration(config)


def _qwen3(tied: bool) -> Any:
    return Qwen3ForCausalLM(Qwen3Config(**TEXT, tie_word_embeddings=tied))


_MAKERS = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "qwen3": _qwen3,
}


def batch(model: Any, groups: list[tuple[int, int, list[int]]], seed: int = 1) -> dict[str, Any]:
    """Completions as TRL lays them out: prompts padded left, completions right, images once for each completion.

    `groups` has for each prompt its text tokens, its images, and the lengths of its completions.
    """
    generator = torch.Generator().manual_seed(seed)
    family = model.config.model_type
    prompts: list[torch.Tensor] = []
    pixels: list[torch.Tensor] = []
    grids: list[torch.Tensor] = []
    counts: list[int] = []
    answers: list[torch.Tensor] = []
    for number, (words, images, lengths) in enumerate(groups):
        ids = [torch.randint(3, 89, (words,), generator=generator)]
        mine: list[torch.Tensor] = []
        shapes: list[torch.Tensor] = []
        for k in range(images):
            grid = torch.tensor([1, 4, 4 + 2 * ((number + k) % 2)])
            seen = 4 if family == "internvl" else int(grid.prod()) // 4
            ids += [torch.tensor([92]), torch.full((seen,), IMAGE), torch.tensor([93])]
            size = (1, 3, 8, 8) if family == "internvl" else (int(grid.prod()), 3 * 2 * 4 * 4)
            mine.append(torch.randn(size, generator=generator))
            shapes.append(grid)
        ids.append(torch.randint(3, 89, (2,), generator=generator))
        for length in lengths:
            prompts.append(torch.cat(ids))
            answers.append(torch.randint(3, 89, (length,), generator=generator))
            pixels += mine
            grids += shapes
            counts.append(images)
    left, right = max(len(ids) for ids in prompts), max(1, *(len(ids) for ids in answers))
    input_ids, mask = torch.zeros(len(prompts), left + right, dtype=torch.long), torch.zeros(len(prompts), left + right)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        input_ids[row, left - len(prompt) : left], mask[row, left - len(prompt) : left] = prompt, 1
        input_ids[row, left : left + len(answer)], mask[row, left : left + len(answer)] = answer, 1
    found: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask.long(), "logits_to_keep": right}
    if pixels:
        found |= {"pixel_values": torch.cat(pixels), "num_images": counts}
    if grids and family != "internvl":
        found |= {"image_grid_thw": torch.stack(grids), "mm_token_type_ids": (input_ids == IMAGE).long()}
    return found
