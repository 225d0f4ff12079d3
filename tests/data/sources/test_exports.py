"""One set of photos in eight forms with boxes and three without: every source gives the same."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mllm.data import sources
from mllm.data.sources import PhotoRequest
from mllm.data.splits import Shares, fingerprint, split
from mllm.io.images import open_image
from mllm.records import Photo
from mllm.synthesis.lineups import Pool
from tests.support.exports import WITH_BOXES, WITHOUT_BOXES, Shot, drawn

ROOT = Path(__file__).resolve().parents[3]
PETS = Path(os.environ.get("FIELDMARK_TEST_DATA", ROOT.parent / "shared" / "data")) / "oxford_pets_sample"


def pets() -> list[Shot]:
    """A photo of each breed in the sample of real photos, with its outer box in whole pixels."""
    return [
        Shot(PETS / row["image"], (row["width"], row["height"]), row["breed"].replace("_", " "), (box,))
        for row in json.loads((PETS / "annotations.json").read_text())[::4]
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


def test_the_same_photos_are_on_the_same_sides_with_the_same_questions_from_every_source(tmp_path: Path) -> None:
    """Ids and the order of the listing differ from source to source, the content of the photos does not."""
    shots, found = drawn(tmp_path / "drawn", kinds=6, each=4), set()
    for name, export in (WITH_BOXES | WITHOUT_BOXES).items():
        path = export(tmp_path / name, shots if name in ("csv", "voc") else shots[::-1])
        read_photos = read(name, path, name in WITHOUT_BOXES, tmp_path).values()
        photos = [replace(photo, genus=None) for photo in read_photos]  # only two of the sources know it
        prints = [fingerprint(open_image(photo.image), photo.boxes) for photo in photos]
        sides = split(photos, prints, Shares(), 0).photos
        assert {photo.split for photo in sides} == {"train", "validation", "test"}
        pool = Pool(sides, "train", dict.fromkeys({photo.entity for photo in sides}, ("red",)), (2, 4))
        asked = [
            [Path(photo.image).name for photo in (*lineup.targets, *lineup.photos)]
            for number in range(6)
            for lineup in [pool.draw(number, "0", random.Random(number), sisters=0.5, questions=1)]
        ]
        found.add((name in WITHOUT_BOXES, json.dumps([{Path(p.image).name: p.split for p in sides}, asked])))
    assert len(found) == 2, "one with the boxes, one without"
