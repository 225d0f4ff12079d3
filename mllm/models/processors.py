"""Processors of the Qwen-VL models, with and without torchvision.

transformers' classes need torchvision for video only; without it they are built here without their video part.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mllm.errors import FieldmarkError
from mllm.io import strict_json
from mllm.models.loading_checks import check_tokenizer, one_sentence

FROM_BASE = "copy the tokenizer, template and preprocessor files of the base model into the folder"
PROCESSOR_CLASSES = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
}
"""Processor class of transformers by model type."""


@cache
def _image_class(model_type: str) -> type:
    """Return transformers' processor class without its video part. It keeps its name, so saved files load anywhere."""
    import transformers
    from transformers.processing_utils import ProcessorMixin

    if model_type not in PROCESSOR_CLASSES:
        known = ", ".join(sorted(PROCESSOR_CLASSES))
        raise FieldmarkError(f"no processor for model_type {model_type!r}; known: {known}")
    stock = getattr(transformers, PROCESSOR_CLASSES[model_type])

    class ImageProcessor(stock):
        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
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
    """Build an image processor from its parts; `tokenizer` is set to left padding, which generation and GRPO need."""
    tokenizer.padding_side = "left"
    template = chat_template or tokenizer.chat_template
    return _image_class(model_type)(image_processor=image_processor, tokenizer=tokenizer, chat_template=template)


def load_processor(folder: str | Path, config: Any) -> Any:
    """Load the processor of a folder or Hub name, and check it against the model's `config`.

    It has no video part where torchvision is missing, or where the folder has none.

    Raises FieldmarkError: the model type has no known processor; tokenizer, template or preprocessor are missing, or
    do not belong to the model.
    """
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    local = Path(folder)
    check_tokenizer(local, FROM_BASE)
    unreadable = f"{folder}: the image preprocessor cannot be read (preprocessor_config.json)"
    with one_sentence(unreadable, FROM_BASE):
        old = _old_names(folder, config)
    has_video = not local.is_dir() or (local / "video_preprocessor_config.json").is_file()
    if find_spec("torchvision") is not None and has_video and not old:
        with one_sentence(f"{folder}: tokenizer and preprocessor cannot be read"):
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        processor.tokenizer.padding_side = "left"
    else:
        with one_sentence(f"{folder}: the tokenizer cannot be read", FROM_BASE):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        with one_sentence(unreadable, FROM_BASE):
            image_processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, **old)
        processor = build_processor(config.model_type, image_processor, tokenizer, _saved_template(local))
    _check(processor, config, str(folder))
    return processor


def _old_names(folder: str | Path, config: Any) -> dict[str, Any]:
    """Return what AutoImageProcessor has to be given for a preprocessor file that names its class or its sizes as the
    first uploads of Qwen2.5-VL and what was made of them do; nothing for others."""
    from transformers.image_processing_base import ImageProcessingMixin

    saved, _ = ImageProcessingMixin.get_image_processor_dict(folder)
    size = saved.get("size")
    found = {"config": config} if saved.get("image_processor_type") == "Qwen2_5_VLImageProcessor" else {}
    if isinstance(size, dict) and {"min_pixels", "max_pixels"} == size.keys():
        found["size"] = {"shortest_edge": size["min_pixels"], "longest_edge": size["max_pixels"]}
    return found


def _check(processor: Any, config: Any, folder: str) -> None:
    """Refuse a tokenizer, template or preprocessor that does not fit the model."""
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    if image != config.image_token_id:
        raise FieldmarkError(
            f"{folder}: the tokenizer is not the model's: {processor.image_token} is token {image}, but config.json "
            f"says {config.image_token_id}; {FROM_BASE}"
        )
    if not processor.chat_template:
        raise FieldmarkError(f"{folder}: no chat template (chat_template.jinja) beside the weights; {FROM_BASE}")
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    with one_sentence(f"{folder}: the chat template cannot be used", FROM_BASE):
        text = processor.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    if text.count(processor.image_token) != 1:
        raise FieldmarkError(f"{folder}: the chat template writes no place for an image; {FROM_BASE}")
    size = processor.image_processor.size
    if "shortest_edge" not in size or "longest_edge" not in size:
        raise FieldmarkError(f"{folder}: preprocessor_config.json: size has no shortest_edge and longest_edge (pixels)")


def template_opening(processor: Any) -> str:
    """Return `<think>` if the chat template writes it at the start of the model's turn, otherwise an empty string.

    Templates of reasoning models do so, in every prompt style. The generated text then starts inside the thought, and
    the tag is put back before it is parsed (`answers.whole`). `processor` is None where complete texts are judged
    without a tokenizer (preflight).
    """
    if processor is None:
        return ""
    question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    text = processor.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    return "<think>" if text.rstrip().endswith("<think>") else ""


class _Template(BaseModel):
    chat_template: str


def _saved_template(folder: Path) -> str | None:
    jinja, in_json = folder / "chat_template.jinja", folder / "chat_template.json"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    return strict_json.read(in_json, _Template).chat_template if in_json.is_file() else None
