"""Qwen2-VL: thousandths of the image, `(x1,y1),(x2,y2)` between box tokens (Qwen2-VL technical report, 2.2).

KVG-Bench and DeepPerception use this format.
"""

from collections.abc import Sequence

from mllm.boxes import Box, Frame
from mllm.models.families import Family, Published, whole_numbers
from mllm.models.qwen_vl import QwenVL, corners, lora_targets, text_sizes


class _Qwen2VL(QwenVL):
    write_boxes = Family.write_boxes

    def write_numbers(self, numbers: Sequence[int], label: str | None) -> str:
        name = f"<|object_ref_start|>{label}<|object_ref_end|>" if label else ""
        return f"{name}<|box_start|>{corners(numbers)}<|box_end|>"

    def mention(self, box: Box, frame: Frame) -> str:
        # Without the box tokens, as the published chains of thought do.
        self.check_frame(frame)
        return corners(whole_numbers(box, frame))


_VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
FAMILY = _Qwen2VL(
    "qwen2_vl",
    patch=14,
    numbers=Frame(1000, 1000),
    targets=lora_targets("fc[12]", r"merger\.mlp\.[02]"),
    checkpoints={
        "Qwen/Qwen2-VL-2B-Instruct": Published(
            2_208_985_600, text_sizes(1536, 8960, 28, 12, 2, 151_936), _VISION | {"hidden_size": 1536}, tied=True
        ),
        "Qwen/Qwen2-VL-7B-Instruct": Published(
            8_291_375_616, text_sizes(3584, 18_944, 28, 28, 4, 152_064), _VISION | {"hidden_size": 3584}, tied=False
        ),
    },
)
