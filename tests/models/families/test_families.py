"""The contract of every family file, and boxes through the real image processor's resizing."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mllm.boxes import Box, Frame, iou
from mllm.errors import FamilyError
from mllm.models import families
from mllm.models.families import Budget, Family
from mllm.prompting.answers import parse
from mllm.records import Thing
from tests.support.strategies import boxes

ROOT = Path(__file__).resolve().parents[3]
ALL = [families.load(name) for name in families.names()]
SHAPES = [(640, 480), (333, 500), (1920, 300), (97, 1300), (50, 40)]
"""Width and height of images: plain, no multiple of anything, very wide, very tall, smaller than the budget."""
BUDGETS = [(4, 64), (16, 400), (256, 1280)]
"""Fewest and most visual tokens of an image."""
THINGS = [Box(0.1, 0.2, 0.4, 0.9), Box(0, 0, 1, 1), Box(0.91, 0.03, 1, 0.13), Box(0.333, 0.5, 0.667, 0.501)]

each_family = pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)


# The contract ---------------------------------------------------------------------------------------------------------


def budget_of(family: Family, least: int, most: int) -> Budget:
    """The budget for images of `least` to `most` visual tokens."""
    return Budget(least * family.factor**2, most * family.factor**2)


def test_a_file_is_a_family() -> None:
    files = {file.stem for file in (ROOT / "mllm" / "models" / "families").glob("*.py")} - {"__init__"}
    assert set(families.names()) == files >= {"pocket", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"}


@each_family
def test_the_contract(family: Family) -> None:
    module = import_module(f"mllm.models.families.{family.name}")
    assert module.FAMILY is family is families.load(family.name)
    assert isinstance(family, Family) and module.__doc__
    assert pickle.loads(pickle.dumps(family)) == family
    assert family.patch > 0 and family.merge > 0 and family.budget.min_pixels >= family.factor**2
    assert set(family.lora_targets) == {"vision", "projector", "llm"}


@each_family
@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_boxes_survive_writing_and_reading(family: Family, size: tuple[int, int]) -> None:
    frame = family.frame(Frame(*size), family.budget)
    for box in THINGS:
        for text in (family.write_box(box, frame), family.write_box(box, frame, "a thing"), family.mention(box, frame)):
            (numbers,) = family.read(text)
            back = Box.from_xyxy(numbers, frame)
            for wrote, meant, side in zip(numbers, box.to_xyxy(frame), (frame.width, frame.height) * 2, strict=True):
                assert abs(wrote - meant) <= 1, (text, side)
            answer = parse(f"<answer>{text}</answer>", family, frame)
            assert answer.problem is None and answer.boxes == (back,)
    both = family.write_box(THINGS[0], frame) + " and " + family.mention(THINGS[1], frame)
    assert len(family.read(both)) == 2


@each_family
@given(box=boxes(0.05))
def test_any_fair_sized_box_is_almost_kept(family: Family, box: Box) -> None:
    frame = family.frame(Frame(640, 480), family.budget)
    (numbers,) = family.read(family.write_box(box, frame))
    assert iou(Box.from_xyxy(numbers, frame), box) > (0.6 if family.name == "pocket" else 0.9)  # hundredths are coarse


@each_family
@given(box=boxes(1e-6))
def test_the_thinnest_box_can_be_read_back(family: Family, box: Box) -> None:
    frame = family.frame(Frame(640, 480), family.budget)
    (numbers,) = family.read(family.write_box(box, frame))
    x1, y1, x2, y2 = Box.from_xyxy(numbers, frame).to_xyxy(frame)
    assert x2 - x1 > 0.99 and y2 - y1 > 0.99  # at least a unit, inside the frame


@each_family
@given(text=st.text())
def test_reading_never_raises(family: Family, text: str) -> None:
    assert all(len(numbers) == 4 for numbers in family.read(text))


@each_family
def test_a_thought_is_written_in_the_familys_format(family: Family) -> None:
    things = [Thing("a", THINGS[0]), Thing("b", THINGS[1])]
    frame = family.frame(Frame(640, 480), family.budget)
    text = family.write_thought("1 <obj:0>: red. 2 <obj:1>: blue, not <obj:0>.", things, frame)
    assert "<obj" not in text and text.startswith("1 ") and text.endswith(".")
    assert family.read(text) == [family.read(family.write_box(THINGS[k], frame))[0] for k in (0, 1, 0)]
    with pytest.raises(FamilyError, match="<obj:2>"):
        family.write_thought("<obj:2>", things, frame)


# The image's size, by the processors themselves ---------------------------------------------------------------------


def image_processor(family: Family, budget: Budget) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(patch_size=family.patch, merge_size=family.merge, size=budget.size)


@each_family
@pytest.mark.parametrize("tokens", BUDGETS, ids=str)
def test_the_resized_size_is_the_processors_own(family: Family, tokens: tuple[int, int]) -> None:
    budget = budget_of(family, *tokens)
    processor = image_processor(family, budget)
    for size in SHAPES:
        grid = processor(images=[Image.new("RGB", size)], return_tensors="np")["image_grid_thw"][0].tolist()
        assert family.resized(Frame(*size), budget) == Frame(grid[2] * family.patch, grid[1] * family.patch)
        assert family.visual_tokens(Frame(*size), budget) == grid[1] * grid[2] // family.merge**2


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_saved_processor_gives_the_same_size_without_torchvision(tmp_path: Path, model_type: str) -> None:
    """What a checkpoint brings: AutoImageProcessor picks its own class, with torchvision or without."""
    from transformers import AutoImageProcessor

    family = families.load(model_type)
    budget = budget_of(family, 16, 100)
    config = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "any",
        "patch_size": family.patch,
        "merge_size": family.merge,
        "size": budget.size,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    grid = processor(images=[Image.new("RGB", (500, 300))], return_tensors="pt")["image_grid_thw"][0].tolist()
    resized = family.resized(Frame(500, 300), budget)
    assert (resized.height, resized.width) == (grid[1] * family.patch, grid[2] * family.patch)


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_pixels_of_the_resized_image_are_where_the_thing_is(size: tuple[int, int]) -> None:
    """Paint a box, let the processor resize the image, look where the paint went: Qwen2.5-VL points there."""
    import numpy as np

    family = families.load("qwen2_5_vl")
    budget = budget_of(family, 16, 256)
    image = Image.new("RGB", size)
    painted = (size[0] // 5, size[1] // 4, size[0] // 2, size[1] * 3 // 4)
    image.paste("white", painted)
    frame = family.frame(Frame(*size), budget)
    (numbers,) = family.read(family.write_box(Box.from_xyxy(painted, Frame(*size)), frame))

    inputs = image_processor(family, budget)(images=[image], return_tensors="np")
    _, rows, columns = inputs["image_grid_thw"][0].tolist()
    merge, patch = family.merge, family.patch
    # One row a patch, ordered by merged token and then within it; values: channel, time, y, x.
    patches = inputs["pixel_values"].reshape(rows // merge, columns // merge, merge, merge, 3, 2, patch, patch)[
        ..., 0, 0, :, :
    ]
    seen = patches.transpose(0, 2, 4, 1, 3, 5).reshape(rows * patch, columns * patch)
    assert (columns * patch, rows * patch) == (frame.width, frame.height)
    ys, xs = np.nonzero(seen > (seen.min() + seen.max()) / 2)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == pytest.approx(numbers, abs=2)


# The wrong frame ------------------------------------------------------------------------------------------------------


def test_the_frame_of_another_image_is_refused_or_shows() -> None:
    family, box = families.load("qwen2_5_vl"), THINGS[0]
    right = family.frame(Frame(640, 480), family.budget)
    assert right == Frame(644, 476)
    for wrong in (Frame(640, 480), Frame(1000, 1000), Frame(100, 100), Frame(1, 1)):
        with pytest.raises(FamilyError, match=r"multiples of 28.*family\.frame"):
            family.write_box(box, wrong)
        with pytest.raises(FamilyError):
            family.mention(box, wrong)
    # The frame of an image turned on its side, or of another budget, is possible; its numbers are other numbers.
    turned = family.frame(Frame(480, 640), family.budget)
    small = family.frame(Frame(640, 480), budget_of(family, 4, 64))
    written = {family.write_box(box, frame) for frame in (right, turned, small)}
    assert len(written) == 3
    (numbers,) = family.read(family.write_box(box, turned))
    assert iou(Box.from_xyxy(numbers, right, clip=True), box) < 0.9
    assert parse(f"<answer>{family.write_box(box, right)}</answer>", family, small).problem == "box outside the frame"


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "pocket"])
def test_a_fixed_frame_is_the_only_one(name: str) -> None:
    family = families.load(name)
    assert family.frame(Frame(640, 480), family.budget) == family.numbers
    for wrong in (Frame(640, 480), Frame(644, 476), Frame(999, 999), Frame(1, 1)):
        for write in (family.write_box, family.mention):
            with pytest.raises(FamilyError, match=rf"{name} writes boxes on"):
                write(THINGS[0], wrong)


def test_the_same_box_has_other_numbers_in_every_convention() -> None:
    numbers = {
        name: tuple(family.read(family.write_box(THINGS[0], family.frame(Frame(640, 480), family.budget)))[0])
        for name, family in ((family.name, family) for family in ALL)
    }
    assert numbers["qwen2_vl"] == numbers["qwen3_vl"] == (100, 200, 400, 900)
    assert numbers["qwen2_5_vl"] == (64, 95, 258, 428)
    assert numbers["pocket"] == (10, 20, 40, 90)


def test_native_formats() -> None:
    box, label = THINGS[0], "Boeing 747"
    spelled = {f.name: f.write_box(box, f.frame(Frame(640, 480), f.budget), label) for f in ALL}
    assert spelled == spelled | {
        "qwen2_vl": "<|object_ref_start|>Boeing 747<|object_ref_end|><|box_start|>(100,200),(400,900)<|box_end|>",
        "qwen2_5_vl": '{"bbox_2d": [64, 95, 258, 428], "label": "Boeing 747"}',
        "qwen3_vl": '{"bbox_2d": [100, 200, 400, 900], "label": "Boeing 747"}',
        "pocket": "(10,20),(40,90)",
    }


def test_impossible_sizes_and_budgets() -> None:
    family = families.load("qwen3_vl")
    with pytest.raises(FamilyError, match="aspect ratio"):
        family.resized(Frame(4000, 10), family.budget)
    with pytest.raises(FamilyError, match="whole pixels"):
        family.resized(Frame(10.5, 10), family.budget)
    for pixels in ((0, 5), (5, 4), (-1, 4), (1.5, 4), (True, 4)):
        with pytest.raises(FamilyError, match="budget"):
            Budget(*pixels)  # type: ignore[arg-type]


def test_families_load_without_torch() -> None:
    program = (
        "import sys\n"
        "from mllm import records\nfrom mllm.io import images\n"
        "from mllm.models import families\nfrom mllm.prompting import answers, prompts\n"
        "for name in families.names(): families.load(name)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


# LoRA targets ---------------------------------------------------------------------------------------------------------


def tiny(model_type: str) -> Any:
    """A model of the family without weights (on the meta device), two layers of everything."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    side = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32)
    text = side | dict(vocab_size=64, head_dim=16, bos_token_id=0, eos_token_id=1)
    vision = {"depth": 2, "num_heads": 2, "hidden_size": 32}
    vision |= {"embed_dim": 32} if model_type == "qwen2_vl" else {"out_hidden_size": 32, "intermediate_size": 32}
    vision |= {"deepstack_visual_indexes": [0]} if model_type == "qwen3_vl" else {}
    config = AutoConfig.for_model(model_type, text_config=text, vision_config=vision)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


@each_family
def test_lora_targets_are_all_linear_layers_of_their_part(family: Family) -> None:
    import torch

    model = tiny(family.model_type)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    everything = {name for name, _ in model.named_modules()}
    found = {
        part: {name for name in everything if re.fullmatch(target, name)}
        for part, target in family.lora_targets.items()
    }
    assert all(names and names <= linear for names in found.values())
    assert len(found["vision"]) + len(found["projector"]) + len(found["llm"]) == len(set().union(*found.values()))
    assert linear - set().union(*found.values()) == {"lm_head"}  # TRL refuses LoRA there


def test_a_family_without_write_numbers_cannot_be_made():
    one = families.load("pocket")
    with pytest.raises(TypeError, match="write_numbers"):
        families.Family(one.name, one.model_type, one.patch, one.merge, one.numbers, one.budget, one.lora_targets)  # pyright: ignore
