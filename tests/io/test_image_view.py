"""Image views: cropped to whole pixels, shrunk to the budget, identified by the bytes of the file."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.errors import ImageError
from mllm.io.image_view import ImageView


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_noise((200, 100), 60).convert("RGB").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_whole_part_and_shrunk(photo: Path) -> None:
    assert ImageView(photo, 10**6).size == Frame(200, 100) and ImageView(photo, 10**6).open().size == (200, 100)
    small = ImageView(photo, 5000)
    assert small.size == Frame(100, 50) and small.open().size == (100, 50)
    part = ImageView(photo, 10**6, Box(0.101, 0.1, 0.299, 0.9))
    assert part.window == Box(0.1, 0.1, 0.3, 0.9) and part.size == Frame(40, 80)
    assert part.open().tobytes() == Image.open(photo).crop((20, 10, 60, 90)).tobytes()
    sliver = ImageView(photo, 10**6, Box(0.9999, 0.5, 1, 0.5001))
    assert sliver.open().size == (1, 1)


def test_data_urls_are_lossless_for_small_pngs(photo: Path, tmp_path: Path) -> None:
    kind, _, data = ImageView(photo, 10**6).data_url().partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(BytesIO(base64.b64decode(data))).tobytes() == Image.open(photo).tobytes()
    Image.open(photo).resize((1200, 600)).save(tmp_path / "b.png")
    assert ImageView(tmp_path / "b.png", 10**6).data_url().startswith("data:image/jpeg;base64,")


def test_identity(photo: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(photo.read_bytes())
    assert ImageView(copy, 5000).identity() == ImageView(photo, 5000).identity()
    others = [ImageView(photo, 4999), ImageView(photo, 5000, Box(0, 0, 1, 0.5))]
    assert all(view.identity() != ImageView(photo, 5000).identity() for view in others)
    with pytest.raises(ImageError, match="absent.png"):
        ImageView(tmp_path / "absent.png", 5000).identity()
