"""Photos in folders: `root/<entity>/*.jpg`, the folder's name being the entity's (`_` reads as a space).

Boxes stand in `root/boxes.jsonl`, a line `{"image": "<entity>/a.jpg", "box": [x1, y1, x2, y2]}` each, or in
`root/boxes.csv` with columns image,x1,y1,x2,y2; in pixels of the image as people see it (after EXIF orientation).
A photo may have several lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mllm.data.sources import (
    IMAGES,
    Request,
    SourceError,
    boxes_or_whole,
    make_box,
    need_domain,
    need_input,
    one_photo,
    read_text,
    source_image_size,
    stay_inside,
)
from mllm.data.sources.csv import numbers_of, rows_of
from mllm.io import strict_json
from mllm.records import Photo

SIDECARS = ("boxes.jsonl", "boxes.csv")
Written = tuple[str, tuple[float, ...]]
"""Where a box was written (file:line) and its four numbers."""


def photos(request: Request) -> Iterator[Photo]:
    """Yield the photos of every entity's folder, in the order of their names."""
    root = need_input(request, "folder")
    domain = need_domain(request.domain, str(root))
    written = _sidecar(root)
    count = 0
    for path in sorted(path for path in root.glob("*/*") if path.suffix.lower() in IMAGES):
        name = path.relative_to(root).as_posix()
        count += 1
        with one_photo(request):
            yield _photo(root, path, written.pop(name, []), domain, request)
    if not count:
        raise SourceError(f"{root}: no photo found; the layout is {root.name}/<entity>/<photo>.jpg")
    for name, rows in written.items():
        with one_photo(request):
            raise SourceError(f"{rows[0][0]}: field image: no such photo {root / name}")


def _photo(root: Path, path: Path, written: list[Written], domain: str, request: Request) -> Photo:
    """Make one photo of a file and what was written of its boxes."""
    name = path.relative_to(root).as_posix()
    stay_inside(root, path)
    frame = source_image_size(path, name)
    boxes = [
        make_box(numbers, frame, f"{where}: field box", order="xyxy", clip=request.clip_boxes)
        for where, numbers in written
    ]
    return Photo(
        id=name,
        image=str(path.resolve()),
        size=frame,
        domain=domain,
        entity=path.parent.name.replace("_", " "),
        boxes=boxes_or_whole(boxes, str(path), request),
        licence=request.licence,
        provenance={"source": "image_folder"},
    )


def _sidecar(root: Path) -> dict[str, list[Written]]:
    """Read the boxes file, if there is one: photo -> its boxes as written."""
    found = [root / name for name in SIDECARS if (root / name).is_file()]
    if len(found) > 1:
        raise SourceError(f"{root}: both {' and '.join(SIDECARS)} are there; keep one of them")
    boxes: dict[str, list[Written]] = {}
    for file in found:
        for where, image, numbers in _jsonl(file) if file.suffix == ".jsonl" else _csv(file):
            rows = boxes.setdefault(image, [])
            if any(numbers == other for _, other in rows):
                raise SourceError(f"{where}: the same box of {image} was given before")
            rows.append((where, numbers))
        if not boxes:
            raise SourceError(f"{file}: the file is empty; write boxes into it or take it away")
    return boxes


def _jsonl(file: Path) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Yield (where, photo, numbers) of each line of a boxes.jsonl."""
    for line, text in enumerate(read_text(file).splitlines(), start=1):
        where = f"{file}:{line}"
        if not text.strip():
            continue
        try:
            row: Any = strict_json.loads(text)
        except json.JSONDecodeError as error:
            raise SourceError(f"{where}: broken JSON at column {error.colno}: {error.msg}") from None
        if not isinstance(row, dict) or row.keys() != {"image", "box"}:
            raise SourceError(f'{where}: a line must be {{"image": "...", "box": [x1, y1, x2, y2]}} and nothing else')
        image, box = row["image"], row["box"]
        if not isinstance(image, str):
            raise SourceError(f"{where}: field image: a text is needed, got {image!r}")
        if not isinstance(box, list) or len(box) != 4 or any(type(number) not in (int, float) for number in box):
            raise SourceError(f"{where}: field box: four numbers are needed, got {box!r}")
        yield where, image, tuple(box)


def _csv(file: Path) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Yield (where, photo, numbers) of each row of a boxes.csv."""
    for where, row in rows_of(file, needed=("image", "x1", "y1", "x2", "y2"), optional=()):
        numbers = numbers_of(row, ("x1", "y1", "x2", "y2"), where)
        if numbers is None:
            raise SourceError(f"{where}: field x1: four numbers are needed, the row has none")
        yield where, row["image"], numbers
