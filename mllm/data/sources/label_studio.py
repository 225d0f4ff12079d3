"""Label Studio: its export as JSON or JSON-MIN. Boxes are in percent of the image, and may be turned.

Rectangles, ellipses and polygons with a label are read; where a task has none of them, its choices stand for the whole
image. Of several annotations of a task the ground truth counts, or else the first; cancelled ones and predictions never
do.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, FiniteFloat

from mllm.boxes import Frame, Numbers
from mllm.data.coco_files import Id
from mllm.data.labelled_images import (
    Images,
    Label,
    LabelledImage,
    Point,
    around,
    stated_size,
    turned,
)  # fmt: skip
from mllm.data.labelled_images import (
    photos as made_photos,
)
from mllm.data.source_files import IMAGE_SUFFIXES, SourceError, need_input
from mllm.data.sources import PhotoRequest
from mllm.io import strict_json
from mllm.records import Photo

COLUMNS = ("entity", "image")
SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels")


class _Value(BaseModel):
    """What a mark says: its names, and the numbers of its shape in percent."""

    x: FiniteFloat = 0
    y: FiniteFloat = 0
    width: FiniteFloat = 0
    height: FiniteFloat = 0
    radiusX: FiniteFloat = 0  # noqa: N815
    radiusY: FiniteFloat = 0  # noqa: N815
    rotation: FiniteFloat = 0
    points: list[Point] = []
    rectanglelabels: list[str] = []
    polygonlabels: list[str] = []
    ellipselabels: list[str] = []
    choices: list[str] = []


class _Mark(BaseModel):
    value: _Value = _Value()
    original_width: FiniteFloat | None = None
    original_height: FiniteFloat | None = None
    image_rotation: FiniteFloat = 0


class _Annotation(BaseModel):
    result: list[_Mark] = []
    was_cancelled: bool = False
    ground_truth: bool = False


class _Task(BaseModel):
    data: dict[str, Any]
    id: Id | None = None
    annotations: list[_Annotation] = []


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the annotated images in the order of the export."""
    file = need_input(request, "file")
    advice = "Label Studio's exports JSON and JSON-MIN are read"
    rows = strict_json.read(file, list[dict[str, Any]], kind=SourceError, advice=advice)
    images, columns = Images(file.parent), request.columns

    def read(entry: tuple[int, dict[str, Any]]) -> LabelledImage:
        where = f"{file}: [{entry[0]}]"
        content = entry[1] if "annotations" in entry[1] or "data" in entry[1] else _unpacked(entry[1])
        task = strict_json.parsed(content, _Task, f"{where}: ", kind=SourceError)
        kept = [(not one.ground_truth, number) for number, one in enumerate(task.annotations) if not one.was_cancelled]
        number = min(kept)[1] if kept else 0
        marks = task.annotations[number].result if kept else []
        size = next((stated_size(mark.original_width, mark.original_height) for mark in marks), None)
        labels = list(_labels(marks, f"{where}: field annotations[{number}].result", size))
        if not labels and columns.get("entity") in task.data:
            labels = [Label(where, str(task.data[columns["entity"]]))]
        key = str(entry[0] if task.id is None else task.id)
        image = images.find(_image(task.data, where, columns.get("image", "image")), key)
        return LabelledImage(where, key, image, labels, size=size)

    return made_photos("label_studio", enumerate(rows), read, request)


def _unpacked(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of JSON-MIN as a task: it holds lists of values under the names of their tags."""
    values = [one for value in row.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
    sides = ("original_width", "original_height")
    marks = [{"value": value, **{side: value[side] for side in sides if side in value}} for value in values]
    return {"data": row, "id": row.get("id"), "annotations": [{"result": marks}]}


def _image(data: dict[str, Any], where: str, name: str) -> str:
    """Return the path or address of a task's image: the named field, or else the first that looks like one."""
    found = [data[name]] if name in data else [one for one in data.values() if _is_image(one)]
    if not found or not isinstance(found[0], str):
        raise SourceError(f"{where}: field data: no image is named; say which field it is with --column image=FIELD")
    return found[0]


def _is_image(value: object) -> bool:
    return isinstance(value, str) and value.split("?")[0].lower().endswith(IMAGE_SUFFIXES)


def _labels(marks: list[_Mark], where: str, size: Frame | None) -> Iterator[Label]:
    shapes = [(number, mark) for number, mark in enumerate(marks) if any(getattr(mark.value, one) for one in SHAPES)]
    for number, mark in shapes:
        place, frame = f"{where}[{number}].value", size or Frame(100, 100)
        if mark.image_rotation:
            raise SourceError(f"{where}[{number}]: field image_rotation: boxes on a turned image; turn it back")
        if mark.value.rotation and size is None:
            raise SourceError(f"{place}: field rotation: original_width and original_height are needed for it")
        for name in (name for one in SHAPES for name in getattr(mark.value, one)):
            yield Label(place, name, _corners(mark.value, frame, place), frame=frame)
    if not shapes:  # choices beside shapes are remarks on one of them
        for number, mark in enumerate(marks):
            yield from (Label(f"{where}[{number}].value", name) for name in mark.value.choices)


def _corners(value: _Value, frame: Frame, where: str) -> Numbers:
    """Return x1, y1, x2, y2 in units of `frame`. Rectangles are turned about a corner, ellipses about their middle."""
    across, down = frame.width / 100, frame.height / 100
    x, y = value.x * across, value.y * down
    if value.polygonlabels:
        if len(value.points) < 3:
            raise SourceError(f"{where}: field points: an outline has at least three, got {len(value.points)}")
        return around((x * across, y * down) for x, y in value.points)
    if value.ellipselabels:
        rx, ry = value.radiusX * across, value.radiusY * down
        return turned((x - rx, y - ry, x + rx, y + ry), value.rotation, (x, y))
    return turned((x, y, x + value.width * across, y + value.height * down), value.rotation, (x, y))
