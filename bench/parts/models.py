"""Small models with random weights for timings: Qwen3-VL (the pocket model) and Qwen2.5-VL.

Both have the pocket world's tokenizer (vocabulary 992), five layers of width 192 and a vision tower of four layers of
width 128; they differ as their families do: patches, windows, deepstack, positions, norms.
"""

from __future__ import annotations

from typing import Any

import torch

from mllm.models.processors import build_processor
from mllm.pocket import model as pocket
from mllm.pocket.tokenizer import build_tokenizer

FAMILIES = ("qwen3_vl", "qwen2_5_vl")


def build(family: str) -> tuple[Any, Any]:
    """Return a model of one of `FAMILIES` and its processor."""
    return pocket.build(0) if family == "qwen3_vl" else _qwen2_5_vl()


def token_side(processor: Any) -> int:
    """Return the side of one visual token in pixels."""
    return processor.image_processor.patch_size * processor.image_processor.merge_size


def _qwen2_5_vl() -> tuple[Any, Any]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    images = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2)
    processor = build_processor("qwen2_5_vl", images, build_tokenizer())
    stock, stock_processor = pocket.build(0)
    own = stock.config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "max_position_embeddings", "pad_token_id", "eos_token_id",
             "bos_token_id")  # fmt: skip
    rope = {name: value for name, value in own["text_config"]["rope_parameters"].items() if name != "mrope_interleaved"}
    vision = {
        "depth": 4, "hidden_size": 128, "intermediate_size": 384, "num_heads": 4, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": own["text_config"]["hidden_size"],
        "fullatt_block_indexes": [1, 3], "window_size": 112,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={name: own["text_config"][name] for name in names} | {"rope_parameters": rope},
        vision_config=vision,
        tie_word_embeddings=True,
        **{name: own[name] for name in own if name.endswith("_token_id")},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = stock.generation_config.eos_token_id
    model.generation_config.pad_token_id = stock_processor.tokenizer.pad_token_id
    return model, processor
