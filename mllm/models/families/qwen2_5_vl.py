"""Qwen2.5-VL: pixels of the resized image, JSON with `bbox_2d` (Qwen2.5-VL technical report, 2.2).

So the same box has other numbers under another image budget: the budget is part of the convention.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mllm.boxes import Box, Frame
from mllm.models.families import Budget, Family, Published, whole


class _Qwen25VL(Family):
    def write_numbers(self, numbers: Sequence[int], label: str | None) -> str:
        return json.dumps({"bbox_2d": list(numbers)} | ({"label": label} if label else {}), ensure_ascii=False)

    def write_boxes(self, boxes: Sequence[Box], frame: Frame, label: str | None = None) -> str:
        # One JSON list, as the line answers detection prompts; a single box stays a bare object.
        written = super().write_boxes(boxes, frame, label)
        return f"[{written}]" if len(boxes) > 1 else written

    def mention(self, box: Box, frame: Frame) -> str:
        # JSON in the middle of a sentence would cost a dozen tokens a box.
        self.check_frame(frame)
        return str(list(whole(box, frame)))


_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
_CHECKPOINTS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": Published(
        parameters=3_754_622_976,
        text={
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
        },
        vision=_VISION | {"out_hidden_size": 2048},
        tied=True,
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Published(
        parameters=8_292_166_656,
        text={
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152_064,
        },
        vision=_VISION | {"out_hidden_size": 3584},
        tied=False,
    ),
}


FAMILY = _Qwen25VL(
    name="qwen2_5_vl",
    model_type="qwen2_5_vl",
    patch=14,
    merge=2,
    numbers=None,
    budget=Budget(4 * 28 * 28, 1280 * 28 * 28),
    lora_targets={
        "vision": r".*\bvisual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)",
        "projector": r".*\bvisual\.merger\.mlp\.[02]",
        "llm": r".*\blanguage_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    },
    checkpoints=_CHECKPOINTS,
)
