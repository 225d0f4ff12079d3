"""Qwen3-VL: thousandths of the image, JSON with `bbox_2d` (Qwen3-VL technical report)."""

from typing import Any

from mllm.boxes import Frame
from mllm.models.families import Published
from mllm.models.qwen_vl import QWEN3_TARGETS, QwenVL, text_sizes


def _published(parameters: int, sizes: tuple[int, ...], vision: dict[str, Any], *, tied: bool) -> Published:
    text = text_sizes(*sizes)
    vision = {"num_heads": 16, "patch_size": 16, "num_position_embeddings": 2304, **vision}
    return Published(parameters, {"head_dim": 128, **text}, {**vision, "out_hidden_size": text["hidden_size"]}, tied)


_SMALL = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}
_LARGE = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}
FAMILY = QwenVL(
    "qwen3_vl",
    patch=16,
    numbers=Frame(1000, 1000),
    targets=QWEN3_TARGETS,
    checkpoints={
        "Qwen/Qwen3-VL-2B-Instruct": _published(2_127_532_032, (2048, 6144, 28, 16, 8, 151_936), _SMALL, tied=True),
        "Qwen/Qwen3-VL-4B-Instruct": _published(4_437_815_808, (2560, 9728, 36, 32, 8, 151_936), _SMALL, tied=True),
        "Qwen/Qwen3-VL-8B-Instruct": _published(8_767_123_696, (4096, 12_288, 36, 32, 8, 151_936), _LARGE, tied=False),
    },
)
