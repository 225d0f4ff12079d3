"""COCO instance annotations: the category's name is the entity.

The json lies beside its images, or beside a folder `images`. A photo shows one entity here: images with instances of
several categories are passed over, and so are crowds; a warning counts them. Boxes are `[left, top, width, height]` in
pixels. Where an image carries an EXIF rotation, the json's own width and height tell which way round it was annotated.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mllm.boxes import Box, Frame
from mllm.data.sources import (
    MOST_BOXES,
    Request,
    SourceError,
    boxes_or_whole,
    image_size,
    make_box,
    need_domain,
    need_input,
    one_photo,
    read_text,
    source_image_size,
)
from mllm.io import strict_json
from mllm.io.images import exif_orientation, image_size
from mllm.records import Photo

log = logging.getLogger(__name__)

_ID, _TEXT = ((int, str), "a number or a text"), ((str,), "a text")
_KINDS = {
    "id": _ID, "image_id": _ID, "category_id": _ID, "name": _TEXT, "file_name": _TEXT, "bbox": ((list,), "a list"),
}  # fmt: skip


def photos(request: Request) -> Iterator[Photo]:
    """Yield the images that show one category, in the order of the file."""
    file = need_input(request, "file")
    content = read(file, ("images", "annotations", "categories"))
    categories = by_id(file, content, "categories", ("id", "name"))
    images = by_id(file, content, "images", ("id", "file_name"))
    found = _instances(file, content, images, categories)
    passed: Counter[str] = Counter()
    for key, (where, image) in images.items():
        rows = found.get(key, [])
        if any(row.get("iscrowd") for _, row in rows) or len({row["category_id"] for _, row in rows}) != 1:
            crowd = any(row.get("iscrowd") for _, row in rows)
            passed["crowds" if crowd else "several categories" if rows else "no annotation"] += 1
            continue
        with one_photo(request):
            yield _photo(file, where, image, rows, categories[rows[0][1]["category_id"]][1], request)
    if sum(passed.values()) == len(images):
        raise SourceError(f"{file}: no image shows exactly one category ({_told(passed)}); nothing can be used")
    if passed:
        log.warning("%s: %d of %d images passed over (%s)", file, sum(passed.values()), len(images), _told(passed))


def read(file: Path, lists: Sequence[str]) -> dict[str, Any]:
    """Read the json and check that its lists are there and not empty."""
    text = read_text(file)
    if not text.strip():
        raise SourceError(f"{file}: the file is empty")
    try:
        content = strict_json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(f"{file}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}") from None
    for name in lists:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise SourceError(f"{file}: field {name}: a list is needed; is this a COCO file of that kind?")
        if not content[name]:
            raise SourceError(f"{file}: field {name} is empty")
    return content


def by_id(file: Path, content: dict[str, Any], name: str, needed: tuple[str, ...]) -> dict[Any, tuple[str, Any]]:
    """Index one of the lists by id, each entry with where it stands."""
    rows: dict[Any, tuple[str, Any]] = {}
    for index, row in enumerate(content[name]):
        where = f"{file}: {name}[{index}]"
        for field in needed:
            if not isinstance(row, dict) or field not in row:
                raise SourceError(f"{where}: field {field} is missing")
            kind, name_of_kind = _KINDS[field]
            if type(row[field]) not in kind:
                raise SourceError(f"{where}: field {field}: {name_of_kind} is needed, got {row[field]!r:.60}")
        if row["id"] in rows:
            raise SourceError(f"{where}: field id: {row['id']!r} was used before, at {rows[row['id']][0]}")
        rows[row["id"]] = (where, row)
    return rows


def _instances(file: Path, content: dict[str, Any], images: Any, categories: Any) -> dict[Any, list[tuple[str, Any]]]:
    """Group the annotations by image, after checking what they refer to."""
    found: dict[Any, list[tuple[str, Any]]] = {}
    needed = ("id", "image_id", "category_id", "bbox")
    for where, row in by_id(file, content, "annotations", needed).values():
        for field, known in (("image_id", images), ("category_id", categories)):
            if row[field] not in known:
                raise SourceError(f"{where}: field {field}: {row[field]!r} is in no entry of {field[:-3]} list")
        found.setdefault(row["image_id"], []).append((where, row))
    return found


def _photo(file: Path, where: str, image: Any, rows: list[tuple[str, Any]], category: Any, request: Request) -> Photo:
    """Make one photo of an image and its instances."""
    path, seen = find(file, where, image)
    found = boxes(path, seen, where, image, rows, request.clip_boxes)
    return Photo(
        id=str(image["id"]),
        image=str(path.resolve()),
        size=seen,
        domain=need_domain(request.domain or category.get("supercategory"), where),
        entity=category["name"],
        boxes=boxes_or_whole(list(dict.fromkeys(found)), where, request),  # COCO itself holds a few instances twice
        licence=request.licence,
        provenance={"source": "coco"},
    )


def find(file: Path, where: str, image: Any) -> tuple[Path, Frame]:
    """Return where an image lies, beside the json or beside `images/`, and its size as people see it."""
    path = file.parent / image["file_name"]
    if not path.is_file():
        path = file.parent / "images" / image["file_name"]
    return path, source_image_size(path, f"{where}: field file_name")


def boxes(
    path: Path, seen: Frame, where: str, image: Any, rows: Sequence[tuple[str, Any]], clip: bool
) -> tuple[Box, ...]:
    """Return the boxes of an image's annotations `rows` (each with where it stands), turned as people see it."""
    turn = _turn(path, image, seen, where)
    if len(rows) > MOST_BOXES:
        raise SourceError(f"{where}: {len(rows)} boxes; at most {MOST_BOXES} of one image are taken")
    found = []
    for place, row in rows:
        numbers, frame = row["bbox"], seen if turn == 1 else _stored(path)
        if not isinstance(numbers, list) or len(numbers) != 4 or any(type(one) not in (int, float) for one in numbers):
            raise SourceError(f"{place}: field bbox: four numbers are needed, got {numbers!r}")
        found.append(make_box(numbers, frame, f"{place}: field bbox", order="xywh", clip=clip).oriented(turn))
    return tuple(found)


def _turn(path: Path, image: Any, seen: Frame, where: str) -> int:
    """Return the EXIF orientation the boxes have yet to follow: 1 where they were drawn on the image as seen."""
    if "width" not in image or "height" not in image:
        return 1
    sides = image["width"], image["height"]
    if any(type(side) not in (int, float) for side in sides) or not all(0 < side < 1e9 for side in sides):
        raise SourceError(f"{where}: fields width, height: the image's size in pixels is needed, got {sides!r:.60}")
    said = Frame(*sides)
    if said == seen:
        return 1
    if said == _stored(path):
        return exif_orientation(path)
    raise SourceError(
        f"{where}: fields width, height: {said.width:g} x {said.height:g}, but {path} is {seen.width:g} x"
        f" {seen.height:g}; the boxes would not fit (was the image resized?)"
    )


def _stored(path: Path) -> Frame:
    """Return the size as stored, before EXIF orientation."""
    seen, turn = image_size(path), exif_orientation(path)
    return Frame(seen.height, seen.width) if turn >= 5 else seen


def _told(passed: Counter[str]) -> str:
    """Write counts as text."""
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(passed.items()))
