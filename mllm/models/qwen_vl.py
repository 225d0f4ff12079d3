"""What the Qwen-VL families share: the JSON format of boxes, module names for LoRA, keys of published sizes."""

import json
from collections.abc import Mapping, Sequence

from mllm.boxes import Box, Frame
from mllm.models.families import Budget, Family, Published, whole_numbers


def text_sizes(
    hidden: int, intermediate: int, layers: int, heads: int, key_heads: int, vocabulary: int
) -> dict[str, int]:
    """Return the sizes of a language model by their keys in `text_config`."""
    layer = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    return layer | {"num_attention_heads": heads, "num_key_value_heads": key_heads, "vocab_size": vocabulary}


def lora_targets(vision_mlp: str, projector: str) -> dict[str, str]:
    """Return the linear layers of each part as regular expressions on whole module names."""
    return {
        "vision": rf".*\bvisual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.{vision_mlp})",
        "projector": rf".*\bvisual\.{projector}",
        "llm": r".*\blanguage_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    }


QWEN3_TARGETS = lora_targets("linear_fc[12]", r"(merger|deepstack_merger_list\.\d+)\.linear_fc[12]")


def corners(numbers: Sequence[int]) -> str:
    """Write two corners in round brackets without spaces: `(x1,y1),(x2,y2)`."""
    return "({},{}),({},{})".format(*numbers)


class QwenVL(Family):
    """A generation of Qwen-VL that writes JSON with `bbox_2d`. The default budget is 4 to 1280 visual tokens."""

    def __init__(
        self,
        name: str,
        patch: int,
        numbers: Frame | None,
        targets: dict[str, str],
        checkpoints: Mapping[str, Published],
    ) -> None:
        token = (2 * patch) ** 2
        super().__init__(name, name, patch, 2, numbers, Budget(4 * token, 1280 * token), targets, checkpoints)

    def write_numbers(self, numbers: Sequence[int], label: str | None) -> str:
        """Write a JSON object."""
        return json.dumps({"bbox_2d": list(numbers)} | ({"label": label} if label else {}), ensure_ascii=False)

    def write_boxes(self, boxes: Sequence[Box], frame: Frame, label: str | None = None) -> str:
        """Write several boxes as one JSON list, as these models answer detection prompts; one box is a bare object."""
        written = super().write_boxes(boxes, frame, label)
        return f"[{written}]" if len(boxes) > 1 else written

    def mention(self, box: Box, frame: Frame) -> str:
        """Write the bare list; a JSON object within a sentence would cost a dozen tokens per box."""
        self.check_frame(frame)
        return str(list(whole_numbers(box, frame)))
