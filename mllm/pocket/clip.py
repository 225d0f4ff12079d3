"""Pocket CLIP: two dual encoders trained on the pocket world only, one for rewards and one to judge with.

A real ``CLIPModel`` of small size. The two differ in seed, width and training scenes, so that what fools one need not
fool the other. ``recipes/pretrain_clip.py`` makes the committed weights.
"""

from pathlib import Path
from typing import Any

from mllm.io.files import atomic_folder
from mllm.pocket.tokenizer import build_tokenizer

SIDE, PATCH = 128, 16
"""Images are scaled to a square of 128 pixels and cut into 64 patches."""
END = "<|endoftext|>"
CONTEXT = 64
"""Largest length of a caption in tokens."""
WIDTHS = {"scorer": (96, 96, 64), "judge": (112, 80, 48)}
"""Width of the vision tower, of the text tower and of the space they share."""


def build_clip_tokenizer() -> Any:
    """Return the pocket tokenizer as CLIP needs it: an end token after every caption, padding on the right.

    The end is `<|endoftext|>`, like CLIP's own, and not `<|im_end|>`, whose id is 2: transformers treats a
    configuration with `eos_token_id` 2 as an old one and pools at the token with the highest id instead.
    """
    from tokenizers.processors import TemplateProcessing

    tokenizer = build_tokenizer()
    tokenizer.eos_token = END
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.eos_token_id)]
    )
    tokenizer.padding_side, tokenizer.model_max_length = "right", CONTEXT
    tokenizer.chat_template = None
    return tokenizer


def build_image_processor() -> Any:
    """Return CLIP's image processor, resizing to a square: cropping would lose the things at the border."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(
        size=square, do_center_crop=False, crop_size=square, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def build(which: str, seed: int) -> tuple[Any, Any, Any]:
    """Return a ``CLIPModel`` with random weights, its tokenizer and image processor; ``which``: scorer or judge."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    tokenizer = build_clip_tokenizer()
    vision_width, text_width, shared = WIDTHS[which]
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": 4 * vision_width,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    text = {
        "vocab_size": (len(tokenizer) + 31) // 32 * 32,
        "hidden_size": text_width,
        "intermediate_size": 4 * text_width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=shared)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config), tokenizer, build_image_processor()


def save(model: Any, tokenizer: Any, image_processor: Any, folder: str | Path) -> Path:
    """Write weights, tokenizer and image processor; the folder loads like any CLIP checkpoint."""
    with atomic_folder(Path(folder)) as fresh:
        for part in (model, tokenizer, image_processor):
            part.save_pretrained(fresh)
    return Path(folder)
