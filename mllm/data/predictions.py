"""Boxes that a model found, as files that other tools and the sources read: people correct them, and they come back."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.io.files import atomic_write, write_json


@dataclass(frozen=True, slots=True)
class Prediction:
    """An image, its path below the folder, its size in pixels, and the boxes with their names."""

    image: str
    size: Frame
    things: tuple[tuple[str, Box], ...]


def write(folder: Path, found: Sequence[Prediction], formats: Sequence[str], model: str) -> list[Path]:
    """Write `predictions.*` into the folder of the images, one file for each of `formats`; return the files."""
    return [FORMATS[name](folder, found, model) for name in formats]


def _pixels(box: Box, size: Frame) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(number, 2) for number in box.to_xyxy(size))
    return x1, y1, x2, y2


def _coco(folder: Path, found: Sequence[Prediction], model: str) -> Path:
    names = sorted({name for one in found for name, _ in one.things})
    images, rows = [], []
    for key, one in enumerate(found, start=1):
        images.append({"id": key, "file_name": one.image, "width": one.size.width, "height": one.size.height})
        for name, box in one.things:
            x1, y1, x2, y2 = _pixels(box, one.size)
            bbox = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            area, category = bbox[2] * bbox[3], names.index(name) + 1
            row = {"id": len(rows) + 1, "image_id": key, "category_id": category, "bbox": bbox, "area": area}
            rows.append(row | {"iscrowd": 0})
    categories = [{"id": key, "name": name} for key, name in enumerate(names, start=1)]
    content = {"info": {"description": f"boxes by {model}"}, "images": images, "categories": categories}
    write_json(folder / "predictions.coco.json", content | {"annotations": rows})
    return folder / "predictions.coco.json"


def _csv(folder: Path, found: Sequence[Prediction], model: str) -> Path:
    with atomic_write(folder / "predictions.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "entity", "x1", "y1", "x2", "y2"))
        writer.writerows((one.image, name, *_pixels(box, one.size)) for one in found for name, box in one.things)
    return folder / "predictions.csv"


def _label_studio(folder: Path, found: Sequence[Prediction], model: str) -> Path:
    """Write tasks with pre-annotations; `label` and `image` are what Label Studio's templates call their tags."""
    tasks: list[dict[str, Any]] = []
    for one in found:
        marks = []
        for number, (name, box) in enumerate(one.things):
            x1, y1, x2, y2 = box.to_xyxy(Frame(100, 100))
            value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0, "rectanglelabels": [name]}
            sides = {"original_width": one.size.width, "original_height": one.size.height, "image_rotation": 0}
            tags = {"id": f"box-{number}", "from_name": "label", "to_name": "image", "type": "rectanglelabels"}
            marks.append({**tags, **sides, "value": value})
        data = {"image": f"/data/local-files/?d={one.image}"}
        tasks.append({"data": data, "predictions": [{"model_version": model, "result": marks}]})
    write_json(folder / "predictions.label_studio.json", tasks)
    return folder / "predictions.label_studio.json"


FORMATS: dict[str, Callable[[Path, Sequence[Prediction], str], Path]] = {
    "coco": _coco, "csv": _csv, "label_studio": _label_studio,
}  # fmt: skip
"""What `write` writes, by name."""
