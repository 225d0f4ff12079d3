"""Remembered pixels are the processor's own, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mllm.errors import FieldmarkError
from mllm.pocket.model import build_image_processor
from mllm.training.engine.pixel_cache import remember_pixels
from tests.support.scenes import make_scene


def test_the_same_numbers_come_out(tmp_path: Path) -> None:
    from mllm.io.images import open_image

    images = [open_image(tmp_path / make_scene(tmp_path, k, "train", across=1 + k).image) for k in range(3)]
    stock, ours = build_image_processor(), build_image_processor()
    memory = remember_pixels(ours)
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
    assert remember_pixels(ours) is memory, "remembered once"


def test_it_forgets_above_its_limit_and_saves_without_its_memory(tmp_path: Path) -> None:
    from mllm.io.images import open_image

    images = [open_image(tmp_path / make_scene(tmp_path, k, "train").image) for k in range(3)]
    processor = build_image_processor()
    memory = remember_pixels(processor, limit=1)
    for image in images:
        processor.image_processor(images=[image], return_tensors="pt")
    assert memory is not None and memory.size == 144 * 1536 * 4
    processor.save_pretrained(tmp_path / "saved")
    build_image_processor().save_pretrained(tmp_path / "stock")
    saved, stock = ((tmp_path / name / "processor_config.json").read_text() for name in ("saved", "stock"))
    assert saved == stock


def _processed(images: list[Any], **settings: Any) -> dict[str, torch.Tensor]:
    return dict(build_image_processor().image_processor(images=images, return_tensors="pt", **settings))


def test_a_folder_serves_other_processes_with_the_same_numbers(tmp_path: Path) -> None:
    from mllm.io.images import open_image

    images = [open_image(tmp_path / make_scene(tmp_path, k, "train", across=1 + k).image) for k in range(3)]
    small = {"size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    shelf = tmp_path / "pixels"
    for turn in range(2):  # the second processor has nothing in memory
        ours = build_image_processor()
        memory = remember_pixels(ours, folder=shelf)
        assert memory is not None and memory.folder is not None
        for settings in ({}, small):
            expected = _processed(images, **settings)
            found = ours.image_processor(images=images, return_tensors="pt", **settings)
            for name in expected:
                assert torch.equal(expected[name], found[name])
                assert expected[name].dtype == found[name].dtype
        assert memory.folder.hits == (0 if turn == 0 else 6)
    files = sorted(shelf.iterdir())
    assert len(files) == 6 and all(file.suffix == ".safetensors" for file in files), "nothing half-written is left"


def test_workers_fill_the_folder(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader

    from mllm.io.images import open_image

    images = [open_image(tmp_path / make_scene(tmp_path, k, "train").image) for k in range(4)]
    ours = build_image_processor()
    memory = remember_pixels(ours, folder=tmp_path / "pixels")
    assert memory is not None

    def collate(rows: list[Any]) -> torch.Tensor:
        return ours.image_processor(images=rows, return_tensors="pt")["pixel_values"]

    loader: Any = DataLoader(images, batch_size=2, collate_fn=collate, num_workers=2)  # pyright: ignore[reportArgumentType]
    found = torch.cat(list(loader))
    assert torch.equal(found, _processed(images)["pixel_values"])
    assert len(list((tmp_path / "pixels").glob("*.safetensors"))) == 4 and memory.size == 0, "this process made none"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    from mllm.io.images import open_image

    image = open_image(tmp_path / make_scene(tmp_path, 0, "train").image)
    for turn in range(2):
        ours = build_image_processor()
        assert remember_pixels(ours, folder=tmp_path / "pixels") is not None
        if turn == 0:
            ours.image_processor(images=[image], return_tensors="pt")
            (file,) = (tmp_path / "pixels").iterdir()
            file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FieldmarkError, match=f"{file.name}: damaged"):
        ours.image_processor(images=[image], return_tensors="pt")
