"""Qwen2-VL: thousandths of the image, `(x1,y1),(x2,y2)` between box tokens (Qwen2-VL technical report, 2.2).

KVG-Bench and DeepPerception are written in this form.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllm.boxes import Box, Frame
from mllm.models.families import Budget, Family, Published, whole


class _Qwen2VL(Family):
    def write_numbers(self, numbers: Sequence[int], label: str | None) -> str:
        name = f"<|object_ref_start|>{label}<|object_ref_end|>" if label else ""
        return f"{name}<|box_start|>{spell(numbers)}<|box_end|>"

    def mention(self, box: Box, frame: Frame) -> str:
        # Without the box tokens, two tokens shorter: the published chains of thought do the same.
        self.check_frame(frame)
        return spell(whole(box, frame))


def spell(numbers: Sequence[int]) -> str:
    """Two corners in round brackets, no spaces."""
    x1, y1, x2, y2 = numbers
    return f"({x1},{y1}),({x2},{y2})"


_VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
_CHECKPOINTS = {
    "Qwen/Qwen2-VL-2B-Instruct": Published(
        parameters=2_208_985_600,
        text={
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
        },
        vision=_VISION | {"hidden_size": 1536},
        tied=True,
    ),
    "Qwen/Qwen2-VL-7B-Instruct": Published(
        parameters=8_291_375_616,
        text={
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152_064,
        },
        vision=_VISION | {"hidden_size": 3584},
        tied=False,
    ),
}


FAMILY = _Qwen2VL(
    name="qwen2_vl",
    model_type="qwen2_vl",
    patch=14,
    merge=2,
    numbers=Frame(1000, 1000),
    budget=Budget(4 * 28 * 28, 1280 * 28 * 28),
    lora_targets={
        "vision": r".*\bvisual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])",
        "projector": r".*\bvisual\.merger\.mlp\.[02]",
        "llm": r".*\blanguage_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    },
    checkpoints=_CHECKPOINTS,
)
