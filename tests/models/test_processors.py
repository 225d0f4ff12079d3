"""Processors of real checkpoints, without weights: prompts, tokens, old names, templates that open a thought."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.inference.generate import encode
from mllm.models import families
from mllm.models.checkpoint import Checkpoint, Loaded, open_checkpoint
from mllm.models.families import Budget
from mllm.models.processors import template_opening
from mllm.prompting import conversations, prompts
from mllm.prompting.tasks import CompletionReader
from mllm.records import Sample
from mllm.training import trl_adapter

FAMILIES = {
    "Qwen2-VL": "qwen2_vl", "Qwen2.5-VL": "qwen2_5_vl", "Qwen3-VL-Instruct": "qwen3_vl",
    "Qwen3-VL-Thinking": "qwen3_vl",
}  # fmt: skip
SIZES = ((640, 480), (100, 301), (57, 57))
Real = Callable[..., Checkpoint]
each = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Real:
    if not (shared_data / "real_tokenizers").is_dir():
        pytest.skip("no files of real tokenizers")
    opened: dict[str, Checkpoint] = {}

    def open_it(name: str) -> Checkpoint:
        if name not in opened:
            opened[name] = open_checkpoint(shared_data / "real_tokenizers" / name, family=FAMILIES[name])
        return opened[name]

    return open_it


def sample(size: tuple[int, int], **how: Any) -> Sample:
    box = Box(0.1, 0.2, 0.5, 0.75)
    made = {"id": "a", "task": "ground", "image": "a.png", "domain": "bird", "entity": "wren", "question": "Find it."}
    return Sample(size=Frame(*size), boxes=(box,), thought="It is small.", **(made | how))  # type: ignore[arg-type]


@pytest.mark.ci
@each
def test_prompts_and_tokens_are_those_of_the_stock_processor(name: str, real: Real, shared_data: Path) -> None:
    """The stock parts, as transformers loads and joins them: the tokenizer, its template, the image processor."""
    from transformers import AutoImageProcessor, AutoTokenizer

    checkpoint, folder = real(name), shared_data / "real_tokenizers" / name
    tokenizer, images = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    token = (checkpoint.family.factor) ** 2
    model: Any = type("Model", (), {"device": "cpu"})()
    for budget in (Budget(4 * token, 16 * token), Budget(64 * token, 1280 * token)):
        convention = replace(checkpoint.convention, budget=budget)
        loaded = Loaded(model, checkpoint.processor, checkpoint.family, convention)
        for size in SIZES:
            image, messages = Image.new("RGB", size, "teal"), prompts.messages("Find it.", "direct")
            ours = encode(loaded, [messages], [image])
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            seen = images(images=[image], size=budget.size, return_tensors="pt")
            count = int(seen["image_grid_thw"].prod()) // 4
            stock = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * count))["input_ids"]
            assert ours["input_ids"].tolist() == [stock]
            assert ours["image_grid_thw"].equal(seen["image_grid_thw"])
            assert ours["pixel_values"].equal(seen["pixel_values"])
            assert count == checkpoint.family.visual_tokens(Frame(*size), budget)


@pytest.mark.ci
@each
@pytest.mark.parametrize("style", ["direct", "think"])
def test_labels_are_the_answer_and_its_end_and_rows_are_counted(
    name: str, style: str, real: Real, tmp_path: Path
) -> None:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    opened = real(name)
    opened = replace(opened, convention=replace(opened.convention, prompt=style))
    file = tmp_path / "a.png"
    Image.new("RGB", (96, 64)).save(file)
    one = sample((96, 64))
    rows = trl_adapter.dataset([trl_adapter.Row(one, file)], opened.convention, answers=True)
    batch = DataCollatorForVisionLanguageModeling(opened.processor, completion_only_loss=True)(rows.__getitems__([0]))
    assert conversations.lengths([one], opened) == batch["attention_mask"].sum(1).tolist()
    labels = batch["labels"][0]
    learnt = opened.processor.tokenizer.decode(labels[labels != -100])
    target = conversations.target(one, opened.convention)
    if name.endswith("Thinking"):  # its template opens the thought and writes line ends around it
        target = target.removeprefix("<think>").replace("</think>", "\n</think>\n\n")
        target = target if style == "think" else f"\n</think>\n\n{target}"
    assert learnt == f"{target}<|im_end|>\n"


@pytest.mark.ci
@each
def test_what_the_model_writes_is_read_in_every_style(name: str, real: Real) -> None:
    """A thinking checkpoint's text starts inside the thought, whatever the style asks for."""
    checkpoint = real(name)
    family, budget = checkpoint.family, checkpoint.convention.budget
    opening = template_opening(checkpoint.processor)
    assert opening == ("<think>" if name.endswith("Thinking") else "")
    one = sample((640, 480))
    answer = f"<answer>{family.write_box(one.boxes[0], family.frame(one.size, budget))}</answer>"
    reader = CompletionReader(family, budget, opening)
    if opening:
        thought = "Is it <answer>here</answer>? No.\n</think>\n\n"
        read = reader.read(one, thought + answer)
        assert read.text == f"<think>{thought}{answer}" and read.answer.thought == "Is it <answer>here</answer>? No."
        assert reader.read(one, f"\n</think>\n\n{answer}").text == answer  # nothing was thought
    else:
        read = reader.read(one, answer)
        assert read.text == answer and read.answer.thought is None
    assert read.answer.problem is None and len(read.answer.boxes) == 1


@pytest.mark.ci
@each
def test_a_mixed_in_question_has_its_image_before_the_words(name: str, real: Real) -> None:
    messages = trl_adapter.Exchange("q", "What is it?", "A wren.", "a.png").messages()
    text = real(name).processor.apply_chat_template(messages, tokenize=False)
    assert "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is it?<|im_end|>" in text


OLD = {
    "the first class name": {"image_processor_type": "Qwen2_5_VLImageProcessor"},
    "sizes in pixels": {"min_pixels": None, "max_pixels": None, "size": {"min_pixels": 3136, "max_pixels": 50176}},
    "both": {
        "min_pixels": None, "max_pixels": None, "size": {"min_pixels": 3136, "max_pixels": 50176},
        "image_processor_type": "Qwen2_5_VLImageProcessor",
    },
}  # fmt: skip


@pytest.mark.ci
@pytest.mark.parametrize("change", OLD.values(), ids=OLD)
def test_preprocessor_files_with_old_names_open(
    change: dict[str, Any], real: Real, shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(shared_data / "real_tokenizers" / "Qwen2.5-VL", folder)
    file = folder / "preprocessor_config.json"
    changed = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))
    opened, usual = open_checkpoint(folder, family="qwen2_5_vl"), real("Qwen2.5-VL")
    assert type(opened.processor.image_processor) is type(usual.processor.image_processor)
    longest = 50176 if "size" in change else 12845056
    assert opened.convention.budget == Budget(3136, longest)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_boxes_round_trip_at_odd_sizes(name: str) -> None:
    family, box = families.load(name), Box(0.111, 0.213, 0.577, 0.809)
    for k in range(300):
        size = Frame(37 + 13 * k % 1201, 41 + 29 * k % 1307)
        frame = family.frame(size, family.budget)
        numbers = family.read(family.write_box(box, frame, "wren"))[-1]
        back, unit = Box.from_xyxy(numbers, frame), 1 / min(frame.width, frame.height)
        for one, other in zip(back.to_xyxy(Frame(1, 1)), box.to_xyxy(Frame(1, 1)), strict=True):
            assert abs(one - other) <= unit / 2 + 1e-9
