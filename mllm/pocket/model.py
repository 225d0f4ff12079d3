"""The pocket model: a real ``Qwen3VLForConditionalGeneration`` of a few million parameters, and its processor.

Same classes and code paths as Qwen3-VL-8B, at a small size. ``recipes/pretrain.py`` makes the committed weights.
"""

from pathlib import Path
from typing import Any

from mllm.io.files import atomic_folder
from mllm.models.families import Budget, Convention, write_convention
from mllm.models.processors import build_processor
from mllm.pocket.tokenizer import build_tokenizer

PATCH, MERGE = 16, 2
MIN_PIXELS, MAX_PIXELS = 96 * 96, 288 * 192
"""Budget of an image: 9 to 54 visual tokens of 32x32 pixels."""


def build_config(vocabulary_size: int, token_id: Any) -> Any:
    """Return the configuration; ``token_id`` maps a token's text to its id."""
    from transformers import Qwen3VLConfig

    vision = {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 192,
        "num_position_embeddings": 144,
        "deepstack_visual_indexes": [1, 2],
    }
    text = {
        "vocab_size": vocabulary_size,
        "hidden_size": 192,
        "intermediate_size": 640,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 48,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "pad_token_id": token_id("<|endoftext|>"),
        "eos_token_id": token_id("<|im_end|>"),
        "bos_token_id": token_id("<|endoftext|>"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [8, 8, 8],
            "mrope_interleaved": True,
        },
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_image_processor() -> Any:
    """Return the pocket processor: Qwen's image processor with a small budget, and the pocket tokenizer."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    image_processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return build_processor("qwen3_vl", image_processor, build_tokenizer())


def build(seed: int) -> tuple[Any, Any]:
    """Return a pocket model with random weights, and its processor."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    processor = build_image_processor()
    tokenizer = processor.tokenizer
    vocabulary_size = (len(tokenizer) + 31) // 32 * 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(build_config(vocabulary_size, tokenizer.convert_tokens_to_ids))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, processor


def save(model: Any, processor: Any, folder: str | Path) -> Path:
    """Write weights (safetensors), processor and convention; the folder loads like any checkpoint."""
    with atomic_folder(Path(folder)) as fresh:
        model.save_pretrained(fresh)
        processor.save_pretrained(fresh)
        write_convention(fresh, Convention("pocket", "direct", Budget(MIN_PIXELS, MAX_PIXELS)))
    return Path(folder)
