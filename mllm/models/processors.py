"""Processors of the Qwen-VL lines that work with and without torchvision.

The stock classes insist on a video processor, and that one on torchvision. Images need neither: without torchvision
the same classes are built here without their video part, and everything that concerns images is stock.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mllm.errors import FieldmarkError
from mllm.io import strict_json

PROCESSOR_CLASSES = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
}
"""Stock processor class by ``model_type``."""


@cache
def _image_class(model_type: str) -> type:
    """The stock processor of a model type, less its video part; it keeps the stock name so that what it saves loads
    anywhere."""
    import transformers
    from transformers.processing_utils import ProcessorMixin

    if model_type not in PROCESSOR_CLASSES:
        raise FieldmarkError(
            f"no processor for model_type {model_type!r}; known are {', '.join(sorted(PROCESSOR_CLASSES))}"
        )
    stock = getattr(transformers, PROCESSOR_CLASSES[model_type])

    class ImageProcessor(stock):
        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None
        ) -> None:
            for kind, token in (("image", "<|image_pad|>"), ("video", "<|video_pad|>")):
                setattr(self, f"{kind}_token", token)
                setattr(self, f"{kind}_token_id", tokenizer.convert_tokens_to_ids(token))
            for end in ("start", "end"):
                setattr(self, f"vision_{end}_token", f"<|vision_{end}|>")
                setattr(self, f"vision_{end}_token_id", tokenizer.convert_tokens_to_ids(f"<|vision_{end}|>"))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    ImageProcessor.__name__ = ImageProcessor.__qualname__ = stock.__name__
    return ImageProcessor


def build_processor(model_type: str, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> Any:
    """A processor for images from its parts; ``tokenizer`` pads on the left, as generation and GRPO need."""
    tokenizer.padding_side = "left"
    template = chat_template or tokenizer.chat_template
    return _image_class(model_type)(image_processor=image_processor, tokenizer=tokenizer, chat_template=template)


def load_processor(folder: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The processor saved in ``folder`` (or named on the Hub): stock with torchvision, the same less video without.

    Raises FieldmarkError when the model type has no known processor.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer

    if find_spec("torchvision") is not None:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
        processor.tokenizer.padding_side = "left"
        return processor
    model_type = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).model_type
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    image_processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return build_processor(model_type, image_processor, tokenizer, _saved_template(Path(folder)))


def template_opening(processor: Any, style: str) -> str:
    """Return `<think>` where the chat template itself writes it at the start of the model's turn, else nothing.

    Templates of reasoning models do so: what the model writes then begins inside its thought, and is read with the tag
    put back (`answers.whole`). Only style `think` asks for a thought. `processor` is None where gold answers,
    which are whole, are judged before a tokenizer is at hand (preflight).
    """
    if style != "think" or processor is None:
        return ""
    asked = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    return "<think>" if text.rstrip().endswith("<think>") else ""


class _Template(BaseModel):
    """What chat_template.json holds."""

    chat_template: str


def _saved_template(folder: Path) -> str | None:
    """The chat template beside the weights: ``chat_template.jinja``, or the json older checkpoints carry."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if (folder / "chat_template.json").is_file():
        return strict_json.read(folder / "chat_template.json", _Template).chat_template
    return None
