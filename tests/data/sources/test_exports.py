"""One set of photos in eight forms with boxes and three without: every source gives the same."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mllm.data import sources
from mllm.data.sources import PhotoRequest
from mllm.records import Photo
from tests.support.exports import WITH_BOXES, WITHOUT_BOXES, Shot, drawn

ROOT = Path(__file__).resolve().parents[3]
PETS = Path(os.environ.get("FIELDMARK_TEST_DATA", ROOT.parent / "shared" / "data")) / "oxford_pets_sample"


def pets() -> list[Shot]:
    """The sample of real photos, with their outer boxes in whole pixels."""
    return [
        Shot(PETS / row["image"], (row["width"], row["height"]), row["breed"].replace("_", " "), (box,))
        for row in json.loads((PETS / "annotations.json").read_text())
        for box in [tuple(map(int, row["body_outer_xyxy"]))]
    ]


@pytest.fixture(scope="module", params=["drawn", pytest.param("pets", marks=pytest.mark.skipif(
    not PETS.is_dir(), reason="the pets sample is not there"))])  # fmt: skip
def shots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Shot]:
    return drawn(tmp_path_factory.mktemp("drawn")) if request.param == "drawn" else pets()


def read(name: str, path: Path, whole: bool, out: Path) -> dict[str, Photo]:
    """The photos of a source by the name of their file."""
    request = PhotoRequest(path, "bird", out=out, whole_image_boxes=whole)
    return {Path(photo.image).name: photo for photo in sources.photos(name, request)}


def check_same(found: dict[str, Photo], shots: Sequence[Shot], whole: bool) -> None:
    assert sorted(found) == sorted(shot.path.name for shot in shots)
    for shot in shots:
        photo = found[shot.path.name]
        assert (photo.entity, (photo.size.width, photo.size.height)) == (shot.entity, shot.size)
        wanted = [(0, 0, *shot.size)] if whole else shot.boxes
        assert len(photo.boxes) == len(wanted)
        for box, numbers in zip(photo.boxes, wanted, strict=True):
            assert box.to_xyxy(photo.size) == pytest.approx(numbers, abs=1)


@pytest.mark.parametrize("name", [*WITH_BOXES, *WITHOUT_BOXES])
def test_every_source_gives_the_same_photos_names_and_boxes(name: str, shots: list[Shot], tmp_path: Path) -> None:
    path = (WITH_BOXES | WITHOUT_BOXES)[name](tmp_path / "export", shots)
    whole = name in WITHOUT_BOXES
    check_same(read(name, path, whole, tmp_path), shots, whole)
