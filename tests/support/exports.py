"""One set of labelled photos, written as each tool exports it, so that every source can be compared with the others."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image, ImageDraw


@dataclass(frozen=True)
class Shot:
    """A photo on disk, its size, its one name, and its boxes in whole pixels."""

    path: Path
    size: tuple[int, int]
    entity: str
    boxes: tuple[tuple[int, int, int, int], ...]


Export = Callable[[Path, Sequence[Shot]], Path]


def drawn(folder: Path, kinds: int = 6, each: int = 4) -> list[Shot]:
    """Draw photos that look unlike one another, of 160 x 120 pixels and more."""
    import random

    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(kinds * each):
        rng = random.Random(number)
        size = (160 + 2 * number, 120 + number)
        image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
        pen = ImageDraw.Draw(image)
        for _ in range(14):
            x, y, r = rng.randrange(size[0]), rng.randrange(size[1]), rng.randint(8, 45)
            pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.randrange(256) for _ in range(3)))
        path = folder / f"{number:03d}.png"
        image.save(path)
        boxes = [(10 + number, 15, 90 + number, 100)] + [(0, 0, *size)] * (number % 7 == 0)
        found.append(Shot(path, size, f"kind {'abcdefgh'[number % kinds]}", tuple(boxes)))
    return found


def _copy(shots: Sequence[Shot], folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for shot in shots:
        shutil.copy(shot.path, folder / shot.path.name)
    return [shot.path.name for shot in shots]


def _names(shots: Sequence[Shot]) -> list[str]:
    return list(dict.fromkeys(shot.entity for shot in shots))


def _write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def as_csv(folder: Path, shots: Sequence[Shot]) -> Path:
    _copy(shots, folder)
    with (folder / "photos.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow("image entity x1 y1 x2 y2".split())
        writer.writerows([shot.path.name, shot.entity, *box] for shot in shots for box in shot.boxes)
    return folder / "photos.csv"


def as_coco(folder: Path, shots: Sequence[Shot]) -> Path:
    _copy(shots, folder / "images")
    names = _names(shots)
    images = [
        {"id": n, "file_name": s.path.name, "width": s.size[0], "height": s.size[1]} for n, s in enumerate(shots, 1)
    ]
    rows = [
        {"id": 0, "image_id": n, "category_id": names.index(s.entity), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for n, s in enumerate(shots, 1) for x1, y1, x2, y2 in s.boxes
    ]  # fmt: skip
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    return _write(folder / "instances.json", {"images": images, "annotations": rows, "categories": categories})


def as_yolo(folder: Path, shots: Sequence[Shot]) -> Path:
    """Ultralytics: six decimals, as its own tools write."""
    names = _names(shots)
    _copy(shots, folder / "images" / "train")
    for shot in shots:
        (w, h), lines = shot.size, []
        for x1, y1, x2, y2 in shot.boxes:
            numbers = ((x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h)
            lines.append(f"{names.index(shot.entity)} " + " ".join(f"{number:.6f}" for number in numbers))
        _write(folder / "labels" / "train" / f"{shot.path.stem}.txt", "\n".join(lines))
    text = "path: .\ntrain: images/train\nval:\nnames:\n" + "".join(f"  {n}: {name}\n" for n, name in enumerate(names))
    return _write(folder / "data.yaml", text)


def as_voc(folder: Path, shots: Sequence[Shot]) -> Path:
    """Pixels counted from 1, both corners inside the box."""
    _copy(shots, folder / "JPEGImages")
    for shot in shots:
        objects = "".join(
            f"<object><name>{shot.entity}</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult>"
            f"<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
            for x1, y1, x2, y2 in shot.boxes
        )
        size = f"<size><width>{shot.size[0]}</width><height>{shot.size[1]}</height><depth>3</depth></size>"
        text = f"<annotation>\n<filename>{shot.path.name}</filename>{size}\n{objects}</annotation>"
        _write(folder / "Annotations" / f"{shot.path.stem}.xml", text)
    return folder


def as_label_studio(folder: Path, shots: Sequence[Shot]) -> Path:
    """Percent of the image; uploaded files have a hash before their name."""
    _copy(shots, folder)
    tasks = []
    for number, shot in enumerate(shots, 1):
        (w, h), result = shot.size, []
        for x1, y1, x2, y2 in shot.boxes:
            value = {"x": 100 * x1 / w, "y": 100 * y1 / h, "width": 100 * (x2 - x1) / w, "height": 100 * (y2 - y1) / h}
            value |= {"rotation": 0, "rectanglelabels": [shot.entity]}
            result.append({
                "id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": w,
                "original_height": h, "image_rotation": 0, "value": value,
            })  # fmt: skip
        image = f"/data/upload/1/{number:08x}-{shot.path.name}"
        tasks.append({"id": number, "data": {"image": image}, "annotations": [{"id": 1, "result": result}]})
    return _write(folder / "export.json", tasks)


def as_cvat(folder: Path, shots: Sequence[Shot]) -> Path:
    _copy(shots, folder / "images")
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>"]
    for number, shot in enumerate(shots):
        lines.append(f'<image id="{number}" name="{shot.path.name}" width="{shot.size[0]}" height="{shot.size[1]}">')
        for x1, y1, x2, y2 in shot.boxes:
            place = f'xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0"'
            lines.append(f'<box label={quoteattr(shot.entity)} source="manual" occluded="0" {place}></box>')
        lines.append("</image>")
    return _write(folder / "annotations.xml", "\n".join([*lines, "</annotations>"]))


def as_labelme(folder: Path, shots: Sequence[Shot]) -> Path:
    _copy(shots, folder)
    for shot in shots:
        shapes = [
            {"label": shot.entity, "points": [[x1, y1], [x2, y2]], "group_id": None, "shape_type": "rectangle"}
            for x1, y1, x2, y2 in shot.boxes
        ]  # fmt: skip
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": shot.path.name, "imageData": None}
        _write(folder / f"{shot.path.stem}.json", content | {"imageHeight": shot.size[1], "imageWidth": shot.size[0]})
    return folder


def as_hf(folder: Path, shots: Sequence[Shot]) -> Path:
    """A folder of images with metadata.jsonl, boxes as the guide to object detection has them."""
    _copy(shots, folder / "train")
    rows = []
    for shot in shots:
        boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in shot.boxes]
        objects = {"bbox": boxes, "categories": [shot.entity] * len(boxes)}
        rows.append(json.dumps({"file_name": shot.path.name, "objects": objects}))
    _write(folder / "train" / "metadata.jsonl", "\n".join(rows))
    return folder


def as_folder(folder: Path, shots: Sequence[Shot]) -> Path:
    for shot in shots:
        _copy([shot], folder / shot.entity.replace(" ", "_"))
    return folder


def as_inaturalist(folder: Path, shots: Sequence[Shot]) -> Path:
    """The competition's json: categories with their taxonomy, no boxes, NaN where a place is not known."""
    _copy(shots, folder / "train")
    names = _names(shots)
    images = [
        {"id": n, "file_name": f"train/{s.path.name}", "width": s.size[0], "height": s.size[1], "license": 0,
         "rights_holder": "somebody", "latitude": float("nan")}
        for n, s in enumerate(shots)
    ]  # fmt: skip
    rows = [{"id": n, "image_id": n, "category_id": names.index(shot.entity)} for n, shot in enumerate(shots)]
    categories = [
        {"id": n, "name": name, "common_name": f"common {n}", "supercategory": "Birds", "genus": "Kind"}
        for n, name in enumerate(names)
    ]  # fmt: skip
    licences = [{"id": 0, "name": "CC0", "url": ""}]
    content = {"images": images, "annotations": rows, "categories": categories, "licenses": licences}
    return _write(folder / "train.json", content)


META = """<archive xmlns="http://rs.tdwg.org/dwc/text/" metadata="eml.xml">
 <core encoding="UTF-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy="" ignoreHeaderLines="1"
  rowType="http://rs.tdwg.org/dwc/terms/Occurrence">
  <files><location>occurrence.txt</location></files>
  <id index="0"/>
  <field index="1" term="http://rs.tdwg.org/dwc/terms/scientificName"/>
  <field index="2" term="http://rs.tdwg.org/dwc/terms/genus"/>
  <field default="Aves" term="http://rs.tdwg.org/dwc/terms/class"/>
 </core>
 <extension encoding="UTF-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy="" ignoreHeaderLines="1"
  rowType="http://rs.gbif.org/terms/1.0/Multimedia">
  <files><location>multimedia.txt</location></files>
  <coreid index="0"/>
  <field index="1" term="http://purl.org/dc/terms/type"/>
  <field index="2" term="http://purl.org/dc/terms/identifier"/>
  <field index="3" term="http://purl.org/dc/terms/license"/>
 </extension>
</archive>"""


def as_darwin_core(folder: Path, shots: Sequence[Shot]) -> Path:
    _copy(shots, folder / "images")
    _write(folder / "meta.xml", META)
    rows = [f"{n}\t{shot.entity}\tKind" for n, shot in enumerate(shots)]
    media = [f"{n}\tStillImage\thttps://example.org/media/{s.path.name}\tCC0" for n, s in enumerate(shots)]
    _write(folder / "occurrence.txt", "\n".join(["id\tscientificName\tgenus", *rows]))
    _write(folder / "multimedia.txt", "\n".join(["coreid\ttype\tidentifier\tlicense", *media]))
    return folder


WITH_BOXES: dict[str, Export] = {
    "csv": as_csv, "coco": as_coco, "yolo": as_yolo, "voc": as_voc, "label_studio": as_label_studio, "cvat": as_cvat,
    "labelme": as_labelme, "hf": as_hf,
}  # fmt: skip
WITHOUT_BOXES: dict[str, Export] = {
    "image_folder": as_folder, "inaturalist": as_inaturalist, "darwin_core": as_darwin_core,
}  # fmt: skip
