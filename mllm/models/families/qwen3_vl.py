"""Qwen3-VL: thousandths of the image again, JSON with `bbox_2d` (Qwen3-VL technical report)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mllm.boxes import Box, Frame
from mllm.models.families import Budget, Family, Published, whole


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


_TEXT = {"head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151_936}
_VISION = {"num_heads": 16, "patch_size": 16, "num_position_embeddings": 2304}
_SMALL = _VISION | {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
_LARGE = _VISION | {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}
_CHECKPOINTS = {
    "Qwen/Qwen3-VL-2B-Instruct": Published(
        parameters=2_127_532_032,
        text=_TEXT
        | {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
        vision=_SMALL | {"out_hidden_size": 2048},
        tied=True,
    ),
    "Qwen/Qwen3-VL-4B-Instruct": Published(
        parameters=4_437_815_808,
        text=_TEXT
        | {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
        vision=_SMALL | {"out_hidden_size": 2560},
        tied=True,
    ),
    "Qwen/Qwen3-VL-8B-Instruct": Published(
        parameters=8_767_123_696,
        text=_TEXT
        | {"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32},
        vision=_LARGE | {"out_hidden_size": 4096},
        tied=False,
    ),
}


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
    checkpoints=_CHECKPOINTS,
)
