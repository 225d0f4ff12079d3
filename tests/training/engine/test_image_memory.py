"""Remembered images are what the image processor returns, to the bit."""

from __future__ import annotations

from pathlib import Path

import torch

from mllm.io.images import open_image
from mllm.pocket.model import build_image_processor
from mllm.training.engine.image_memory import remember_images
from tests.support.scenes import make_scene


def test_the_same_numbers_come_out(tmp_path: Path) -> None:
    images = [open_image(tmp_path / make_scene(tmp_path, k, "train", across=1 + k).image) for k in range(3)]
    stock, ours = build_image_processor(), build_image_processor()
    memory = remember_images(ours)
    assert memory is not None
    for batch in (images, [images[1], images[1], images[0]]):
        expected = stock.image_processor(images=batch, return_tensors="pt")
        found = ours.image_processor(images=batch, return_tensors="pt")
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert memory.hits == 3
    small = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    expected = stock.image_processor(images=images[:1], size=small, return_tensors="pt")
    found = ours.image_processor(images=images[:1], size=small, return_tensors="pt")
    assert torch.equal(expected["pixel_values"], found["pixel_values"]), "another budget is another image"
    assert remember_images(ours) is memory, "remembered once"


def test_it_forgets_above_its_limit_and_saves_without_its_memory(tmp_path: Path) -> None:
    images = [open_image(tmp_path / make_scene(tmp_path, k, "train").image) for k in range(3)]
    processor = build_image_processor()
    memory = remember_images(processor, limit=1)
    for image in images:
        processor.image_processor(images=[image], return_tensors="pt")
    assert memory is not None and memory.size == 144 * 1536 * 4
    processor.save_pretrained(tmp_path / "saved")
    build_image_processor().save_pretrained(tmp_path / "stock")
    saved, stock = ((tmp_path / name / "processor_config.json").read_text() for name in ("saved", "stock"))
    assert saved == stock
