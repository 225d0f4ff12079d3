"""The pocket model: a Qwen3-VL of a few million parameters that writes hundredths of the image, `(12,34),(56,78)`.

Each number from 0 to 100 is one token of its vocabulary: such a small model does not learn to write thousandths.
"""

from collections.abc import Sequence

from mllm.boxes import Frame
from mllm.models.families import Budget, Family
from mllm.models.qwen_vl import QWEN3_TARGETS, corners


class _Pocket(Family):
    def write_numbers(self, numbers: Sequence[int], label: str | None) -> str:
        return corners(numbers)  # without the label: the vocabulary has no tokens to mark one


FAMILY = _Pocket(
    name="pocket",
    model_type="qwen3_vl",
    patch=16,
    merge=2,
    numbers=Frame(100, 100),
    budget=Budget(96 * 96, 288 * 192),
    lora_targets=QWEN3_TARGETS,
)
