"""Qwen2.5-VL: pixels of the resized image, JSON with `bbox_2d` (Qwen2.5-VL technical report, 2.2).

The same box has other numbers under another image budget, so the budget is part of the convention.
"""

from mllm.models.families import Published
from mllm.models.qwen_vl import QwenVL, lora_targets, text_sizes

_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
FAMILY = QwenVL(
    "qwen2_5_vl",
    patch=14,
    numbers=None,
    targets=lora_targets("(gate|up|down)_proj", r"merger\.mlp\.[02]"),
    checkpoints={
        "Qwen/Qwen2.5-VL-3B-Instruct": Published(
            3_754_622_976, text_sizes(2048, 11_008, 36, 16, 2, 151_936), _VISION | {"out_hidden_size": 2048}, tied=True
        ),
        "Qwen/Qwen2.5-VL-7B-Instruct": Published(
            8_292_166_656, text_sizes(3584, 18_944, 28, 28, 4, 152_064), _VISION | {"out_hidden_size": 3584}, tied=False
        ),
    },
)
