"""Qwen3-VL: thousandths of the picture again, JSON with `bbox_2d` (Qwen3-VL technical report)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mllm.boxes import Box, Frame
from mllm.families import Budget, Family, whole


class _Qwen3VL(Family):
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


FAMILY = _Qwen3VL(
    name="qwen3_vl",
    model_type="qwen3_vl",
    patch=16,
    merge=2,
    numbers=Frame(1000, 1000),
    budget=Budget(4 * 32 * 32, 1280 * 32 * 32),
    lora_targets={
        "vision": r".*\bvisual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])",
        "projector": r".*\bvisual\.(merger|deepstack_merger_list\.\d+)\.linear_fc[12]",
        "llm": r".*\blanguage_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    },
)
