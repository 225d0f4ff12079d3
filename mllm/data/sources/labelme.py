"""labelme: a JSON file beside each image, or with the image inside.

Rectangles, circles and outlines are read; a file without shapes is named by its flags. Points and lines have no box,
and are noted.
"""

import base64
import binascii
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat

from mllm.boxes import Numbers
from mllm.data.labelled_images import Images, Label, LabelledImage, Point, around, stated_size
from mllm.data.labelled_images import photos as made_photos
from mllm.data.source_files import SourceError, is_hidden, need_input
from mllm.data.sources import PhotoRequest
from mllm.io import strict_json
from mllm.records import Photo

FEWEST = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}
"""Shapes that have a box, and how many points they have at least."""


class _Shape(BaseModel):
    label: str
    points: list[Point]
    shape_type: str = "polygon"


class _File(BaseModel):
    shapes: list[_Shape]
    imagePath: str  # noqa: N815
    imageData: str | None = None  # noqa: N815
    imageWidth: FiniteFloat | None = None  # noqa: N815
    imageHeight: FiniteFloat | None = None  # noqa: N815
    flags: dict[str, Any] | None = None


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images of all JSON files below the folder, in the order of their paths."""
    root = need_input(request, "folder")
    files = [path for path in sorted(root.rglob("*.json")) if not is_hidden(root, path)]
    if not files:
        raise SourceError(f"{root}: no JSON file; labelme writes one beside each image")
    folders = {folder: Images(root, folder) for folder in {file.parent for file in files}}

    def read(file: Path) -> LabelledImage:
        content = strict_json.read(file, _File, kind=SourceError, advice="is it a file of labelme?")
        boxed = [(number, one) for number, one in enumerate(content.shapes) if one.shape_type in FEWEST]
        labels = [Label(f"{file}: shapes[{n}]: field points", one.label, _corners(file, n, one)) for n, one in boxed]
        if not content.shapes:
            flags = content.flags or {}
            labels = [Label(f"{file}: field flags", name) for name, is_set in flags.items() if is_set is True]
        others = Counter(one.shape_type for one in content.shapes if one.shape_type not in FEWEST)
        path = folders[file.parent].find(content.imagePath)
        return LabelledImage(
            str(file),
            file.relative_to(root).with_suffix("").as_posix(),
            path if path.is_file() or not content.imageData else _decoded(content.imageData, file),
            labels,
            path_field="imagePath",
            size=stated_size(content.imageWidth, content.imageHeight),
            notes={"not read": dict(others)} if others else {},
        )

    return made_photos("labelme", files, read, request)


def _corners(file: Path, number: int, shape: _Shape) -> Numbers:
    if (count := len(shape.points)) < (fewest := FEWEST[shape.shape_type]):
        kind = shape.shape_type
        raise SourceError(f"{file}: shapes[{number}]: field points: a {kind} has at least {fewest}, got {count}")
    if shape.shape_type == "circle":  # its middle, and a point on it
        (x, y), edge = shape.points[:2]
        radius = math.dist((x, y), edge)
        return x - radius, y - radius, x + radius, y + radius
    return around(shape.points)


def _decoded(data: str, file: Path) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise SourceError(f"{file}: field imageData: not base64 ({error})") from None
