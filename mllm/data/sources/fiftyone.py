"""FiftyOne: a folder exported as FiftyOneDataset, with samples.json and `data/`.

The labels are in the field `ground_truth`, or in the only field with labels; `--column entity=FIELD` names another.
Boxes are shares of the image. Detections and polylines are read, and classifications, which stand for the whole image.
Tags of a sample (train, validation, test) are its side.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, FiniteFloat

from mllm.boxes import Frame
from mllm.data.coco_files import Numbers4
from mllm.data.labelled_images import SIDES, Images, Label, LabelledImage, Point, around, stated_size
from mllm.data.labelled_images import photos as made_photos
from mllm.data.source_files import SourceError, need_input
from mllm.data.sources import PhotoRequest
from mllm.io import strict_json
from mllm.records import Photo, Split

COLUMNS = ("entity",)
KINDS = {"Detections": "detections", "Polylines": "polylines", "Classifications": "classifications"}
"""Classes of labels, and the field that lists them."""
SHARES = Frame(1, 1)


class _Label(BaseModel):
    label: str | None = None
    bounding_box: Numbers4 | None = None
    points: list[list[Point]] = []


class _Size(BaseModel):
    width: FiniteFloat | None = None
    height: FiniteFloat | None = None


class _Sample(BaseModel):
    filepath: str
    tags: list[str] = []
    metadata: _Size | None = None


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the samples in the order of the file."""
    given = request.input
    file = given / "samples.json" if given is not None and given.is_dir() else need_input(request, "file")
    shape = dict[str, Any] | list[dict[str, Any]]
    content = strict_json.read(file, shape, kind=SourceError, advice="export the data set as FiftyOneDataset")
    rows = content.get("samples", []) if isinstance(content, dict) else content
    rows = strict_json.parsed(rows, list[dict[str, Any]], f"{file}: field samples: ", kind=SourceError)
    wanted, images = _field(rows, request.columns.get("entity"), str(file)), Images(file.parent)

    def read(entry: tuple[int, dict[str, Any]]) -> LabelledImage:
        where = f"{file}: samples[{entry[0]}]"
        sample = strict_json.parsed(entry[1], _Sample, f"{where}: ", kind=SourceError)
        size = sample.metadata or _Size()
        sides: set[Split] = {SIDES[tag.lower()] for tag in sample.tags if tag.lower() in SIDES}
        return LabelledImage(
            where,
            sample.filepath,
            images.find(sample.filepath),
            list(_labels(entry[1].get(wanted), f"{where}: field {wanted}")),
            path_field="filepath",
            size=stated_size(size.width, size.height),
            split=sides.pop() if len(sides) == 1 else None,
        )

    return made_photos("fiftyone", enumerate(rows), read, request)


def _field(rows: list[dict[str, Any]], named: str | None, where: str) -> str:
    """Return the name of the field that holds the labels."""
    found = {
        name: None for row in rows for name, value in row.items()
        if isinstance(value, dict) and value.get("_cls") in (*KINDS, "Classification", "Detection", "Polyline")
    }  # fmt: skip
    if named or "ground_truth" in found:
        return named or "ground_truth"
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise SourceError(f"{where}: fields with labels: {names}; name one with --column entity=FIELD")
    return next(iter(found))


def _labels(value: Any, where: str) -> Iterator[Label]:
    content = strict_json.parsed(value, dict[str, Any] | None, f"{where}: ", kind=SourceError) or {}
    inside = KINDS.get(content.get("_cls", ""))
    listed = content.get(inside, []) if inside else [content] if content else []
    for number, row in enumerate(strict_json.parsed(listed, list[dict[str, Any]], f"{where}: ", kind=SourceError)):
        place = f"{where}.{inside}[{number}]" if inside else where
        one = strict_json.parsed(row, _Label, f"{place}: ", kind=SourceError)
        if not one.label:
            raise SourceError(f"{place}: field label: the mark has no name")
        points = [point for outline in one.points for point in outline]
        if one.bounding_box is not None:
            yield Label(f"{place}.bounding_box", one.label, one.bounding_box, "xywh", SHARES)
        elif points:
            yield Label(f"{place}.points", one.label, around(points), frame=SHARES)
        else:
            yield Label(place, one.label)
