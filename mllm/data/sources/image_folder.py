"""Photos in folders: `root/<entity>/*.jpg`; the folder's name is the entity's (`_` stands for a space).

Boxes are in `root/boxes.jsonl`, one line `{"image": "<entity>/a.jpg", "box": [x1, y1, x2, y2]}` each, or in
`root/boxes.csv` with columns image,x1,y1,x2,y2; in pixels of the image after EXIF rotation. A photo may have several
lines.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat

from mllm.data import source_files
from mllm.data.source_files import SourceError
from mllm.data.sources import PhotoRequest, boxes_or_whole, one_photo
from mllm.io import strict_json
from mllm.io.csv_tables import checked_rows, numbers_of
from mllm.records import Photo

SIDECARS = ("boxes.jsonl", "boxes.csv")
LAYOUTS = {
    "Pascal VOC": {"jpegimages", "segmentationclass", "segmentationobject"},
    "a data set that is divided already, or pictures without labels": set(
        "train training val valid validation dev test testing images image imgs img pictures photos pics data raw all "
        "train2014 val2014 train2017 val2017 test2017".split()
    ),
}
"""Names that folders of pictures have in other layouts, by what a collection of such folders looks like."""
Corners = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
Written = tuple[str, Corners]
"""Where a box was written (`file:line`) and its four numbers."""


class BoxRow(BaseModel):
    """One line of boxes.jsonl."""

    model_config = ConfigDict(extra="forbid")
    image: str
    box: Corners


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the photos of every entity's folder, sorted by name."""
    root = source_files.need_input(request, "folder")
    domain = source_files.need_domain(request.domain, str(root))
    written = _read_boxes(root)
    found = list(source_files.images_below(root, "*/*"))
    _refuse_layout(root, {path.parent.name for _, path in found})
    for name, path in found:
        with one_photo(request):
            yield _photo(root, name, path, written.pop(_key(name), []), domain, request)
    if not found:
        raise SourceError(f"{root}: no photo found; the layout is {root.name}/<entity>/<photo>.jpg")
    for name, rows in written.items():
        with one_photo(request):
            raise SourceError(f"{rows[0][0]}: field image: no such photo {root / name}")


def _refuse_layout(root: Path, kinds: set[str]) -> None:
    """Refuse folders none of which can be a kind, as other layouts have them."""
    for looks, words in LAYOUTS.items():
        if kinds and {kind.lower() for kind in kinds} <= words:
            raise SourceError(
                f"{root}: the folders with photos are called {', '.join(sorted(kinds))}, which names no kind: this "
                f"looks like {looks}. The layout here is {root.name}/<entity>/<photo>.jpg; other labels are read with "
                "--source csv, coco, voc or yolo"
            )


def _photo(root: Path, name: str, path: Path, written: list[Written], domain: str, request: PhotoRequest) -> Photo:
    source_files.check_inside(root, path)
    frame = source_files.read_size(path, name)
    boxes = [
        source_files.make_box(numbers, frame, f"{where}: field box", order="xyxy", clip=request.clip_boxes)
        for where, numbers in written
    ]
    return Photo(
        id=name,
        image=str(path.resolve()),
        size=frame,
        domain=domain,
        entity=path.parent.name,
        boxes=boxes_or_whole(boxes, str(path), request),
        licence=request.licence,
        provenance={"source": "image_folder"},
    )


def _read_boxes(root: Path) -> dict[str, list[Written]]:
    """Read the boxes file, if there is one: photo -> its boxes as written."""
    found = [root / name for name in SIDECARS if (root / name).is_file()]
    if len(found) > 1:
        raise SourceError(f"{root}: both {' and '.join(SIDECARS)} are there; keep one of them")
    boxes: dict[str, list[Written]] = {}
    for file in found:
        for where, image, numbers in _jsonl(file) if file.suffix == ".jsonl" else _csv(file):
            rows = boxes.setdefault(_key(image), [])
            if any(numbers == other for _, other in rows):
                raise SourceError(f"{where}: the same box of {image} was given before")
            rows.append((where, numbers))
        if not boxes:
            raise SourceError(f"{file}: the file is empty; write boxes into it or remove it")
    return boxes


def _key(name: str) -> str:
    r"""Return a photo's name as names are compared: `\` stands for `/`, and accents have one form."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _jsonl(file: Path) -> Iterator[tuple[str, str, Corners]]:
    """Yield `file:line`, photo and numbers of each box."""
    for where, content in source_files.json_lines(file):
        if isinstance(content, dict) and isinstance(content.get("box"), list):
            content["box"] = tuple(content["box"])
        advice = 'a line is {"image": "...", "box": [x1, y1, x2, y2]}'
        row = strict_json.parsed(content, BoxRow, f"{where}: ", advice=advice, kind=SourceError)
        yield where, row.image, row.box


def _csv(file: Path) -> Iterator[tuple[str, str, Corners]]:
    corners = ("x1", "y1", "x2", "y2")
    for where, row in checked_rows(file, needed=("image", *corners), optional=()):
        if (numbers := numbers_of(row, corners, where)) is None:
            raise SourceError(f"{where}: field x1: four numbers are needed, the row has none")
        x1, y1, x2, y2 = numbers
        yield where, row["image"], (x1, y1, x2, y2)
