"""COCO photos of several categories, with crowds: small ones, and the real sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mllm.boxes import Box
from mllm.data import splits
from mllm.records import SPLITS, PhotoThing
from tests.data.sources.test_sources import coco, read


def test_coco_gives_each_category_as_entity_and_notes_crowds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def several(content: dict[str, Any]) -> None:
        content["images"] += [{"id": 2, "file_name": "a.jpg"}, {"id": 3, "file_name": "a.jpg"}]
        content["annotations"] += [
            {"id": 6, "image_id": 2, "category_id": 7, "bbox": [4, 2, 10, 8]},
            {"id": 7, "image_id": 2, "category_id": 8, "bbox": [4, 2, 10, 8]},
            {"id": 8, "image_id": 2, "category_id": 8, "bbox": [0, 0, 40, 8], "iscrowd": 1},
            {"id": 9, "image_id": 3, "category_id": 8, "bbox": [0, 0, 40, 8], "iscrowd": 1},
        ]
        content["categories"][1]["supercategory"] = "songbird"

    alone, scene = read("coco", coco(tmp_path, several))
    assert (alone.id, alone.kinds, alone.is_scene) == ("1", (("bird", "robin"),), False)
    assert alone.boxes == (Box(0.1, 0.1, 0.35, 0.5),)
    assert scene.kinds == (("bird", "robin"), ("songbird", "wren")) and len(scene.boxes) == 2
    assert scene.crowds == (PhotoThing("wren", "songbird"),)
    assert "2 crowd regions passed over; 1 of 3 images skipped (crowds alone: 1)" in caplog.text


def coco_sample(shared_data: Path, folder: Path) -> Path:
    """The real sample as a file in COCO's own format."""
    root = shared_data / "coco_ccby_sample"
    if not root.is_dir():
        pytest.skip(f"no COCO sample at {root}")
    rows = json.loads((root / "instances.json").read_text(encoding="utf-8"))
    listed = [(image, row) for image, found in rows.items() for row in found]
    content = {
        "images": [{"id": image, "file_name": str(root / "images" / image)} for image in rows],
        "categories": [{"id": name, "name": name} for name in sorted({row["category"] for _, row in listed})],
        "annotations": [
            {
                "image_id": image,
                "category_id": row["category"],
                "bbox": row["bbox_xywh"],
                "iscrowd": row.get("iscrowd", 0),
            }
            for image, row in listed
        ],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_the_real_coco_sample_comes_whole(shared_data: Path, tmp_path: Path) -> None:
    found = read("coco", coco_sample(shared_data, tmp_path), domain="thing")
    assert len(found) == 84 and sum(len(photo.boxes) for photo in found) >= 700
    assert sum(photo.is_scene for photo in found) > 60 and sum(len(photo.crowds) for photo in found) == 7
    split = splits.split(found, [[] for _ in found], splits.Shares(), 0)
    assert sum(len(photo.boxes) for photo in split.photos) >= 700
    assert {photo.split for photo in split.photos} == {*SPLITS}
    for photo in split.photos:
        assert photo.split != "train" or all(thing.seen for thing in (*photo.things, *photo.crowds))
