"""`fieldmark predict`: what a model finds goes out in three forms, is corrected, and comes back through the sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm.boxes import Box, Frame
from mllm.data import sources
from mllm.data.predictions import Prediction, write
from mllm.data.sources import PhotoRequest
from mllm.io.images import save_image
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.records import Photo
from tests.support.command_line import fieldmark


def corrected(file: Path) -> Path:
    """What Label Studio exports once a person has accepted every box of the pre-annotations."""
    tasks = json.loads(file.read_text())
    for number, task in enumerate(tasks, start=1):
        task |= {"id": number, "annotations": [{"result": task["predictions"][0]["result"]}]}
    (file.parent / "export.json").write_text(json.dumps(tasks))
    return file.parent / "export.json"


def back(folder: Path) -> list[list[Photo]]:
    """The photos that come back from each of the three files, in the order of their paths."""
    files = {
        "coco": folder / "predictions.coco.json", "csv": folder / "predictions.csv",
        "label_studio": corrected(folder / "predictions.label_studio.json"),
    }  # fmt: skip
    found = [list(sources.photos(name, PhotoRequest(file, "bird"))) for name, file in files.items()]
    return [sorted(photos, key=lambda photo: photo.image) for photos in found]


def test_boxes_go_out_and_come_back(tmp_path: Path) -> None:
    found = []
    for name, size in (("wren/a.png", (40, 30)), ("sub/robin/b.png", (333, 77)), ("none.png", (9, 9))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(world.photo(species("bird")[0], 0)[0].resize(size), tmp_path / name)
        boxes = (Box(1 / 3, 0.1, 1, 0.7), Box(0, 0, 0.123456, 0.999999)) if "/" in name else ()
        entity = Path(name).parent.name
        found.append(Prediction(name, Frame(*size), tuple((entity, box) for box in boxes)))
    assert len(write(tmp_path, found, ("coco", "csv", "label_studio"), "m")) == 3
    for photos in back(tmp_path):
        assert [photo.things[0].entity for photo in photos] == ["robin", "wren"]
        for photo, one in zip(photos, (found[1], found[0]), strict=True):
            for box, (_, other) in zip(photo.boxes, one.things, strict=True):
                assert box.to_xyxy(photo.size) == pytest.approx(other.to_xyxy(photo.size), abs=0.011)


@pytest.mark.ci
def test_the_pocket_model_s_boxes_make_the_round_trip(tmp_path: Path) -> None:
    one = species("bird")[0]
    (tmp_path / one.name.replace(" ", "_")).mkdir()
    save_image(world.photo(one, 0)[0], tmp_path / one.name.replace(" ", "_") / "a.png")
    ended = fieldmark(["predict", str(tmp_path)])
    assert ended.exit_code == 0 and "boxes in 1 of 1 images" in ended.output
    found = [photo for photos in back(tmp_path) for photo in photos]
    assert [photo.things[0].entity for photo in found] == [one.name] * 3
    pixels = [photo.boxes[0].to_xyxy(photo.size) for photo in found]
    assert pixels[1] == pytest.approx(pixels[0], abs=0.02) and pixels[2] == pytest.approx(pixels[0], abs=0.02)


def test_folders_that_name_nothing_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    assert "no such folder" in fieldmark(["predict", str(tmp_path / "none")]).output
    assert "no image found" in fieldmark(["predict", str(tmp_path)]).output
    save_image(world.photo(species("bird")[0], 0)[0], tmp_path / "a.png")
    assert "name things with --find" in fieldmark(["predict", str(tmp_path)]).output
