"""The pocket model: a Qwen3-VL of a few million parameters that writes hundredths of the image, `(12,34),(56,78)`.

Every number from 0 to 100 is a single token of its vocabulary: so small a model does not learn to spell thousandths.
"""

from __future__ import annotations

from collections.abc import Sequence

from mllm.boxes import Frame
from mllm.models.families import Budget, Family


class _Pocket(Family):
    def write_numbers(self, numbers: Sequence[int], label: str | None) -> str:
        x1, y1, x2, y2 = numbers  # the label is left out: the model has no tokens to mark one off
        return f"({x1},{y1}),({x2},{y2})"


FAMILY = _Pocket(
    name="pocket",
    model_type="qwen3_vl",
    patch=16,
    merge=2,
    numbers=Frame(100, 100),
    budget=Budget(96 * 96, 288 * 192),
    lora_targets={
        "vision": r".*\bvisual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])",
        "projector": r".*\bvisual\.(merger|deepstack_merger_list\.\d+)\.linear_fc[12]",
        "llm": r".*\blanguage_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    },
)
