"""Rows of a table of images with nested cells, as `datasets` and WebDataset have them: which cell means what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mllm.data.coco_files import Id, Numbers4
from mllm.data.labelled_images import SIDES, Label, LabelledImage
from mllm.data.source_files import SourceError
from mllm.io import strict_json
from mllm.io.csv_tables import columns_read

ALSO = {
    "entity": ("label",), "image": ("file_name",), "licence": ("license",), "objects": (), "id": ("image_id",),
    "domain": (), "genus": (),
}  # fmt: skip
"""Our name of a column -> what else it is called."""
COLUMNS = tuple(ALSO)
NAMES = ("category", "categories", "label", "labels", "entity", "name")
"""What the names of boxes are called in `objects`."""


class _Row(BaseModel):
    entity: str | None = None
    domain: str | None = None
    genus: str | None = None
    licence: str | None = None
    id: Id | None = None
    objects: dict[str, Any] | None = None


class _Boxes(BaseModel):
    bbox: list[Numbers4]
    names: list[str] = []


class Rows:
    """Makes labelled images of the rows of one data set, whose rows need not have the same columns."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._others: set[str] = set()

    def cells(self, where: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cells of a row under our names; each column that is not read is named in a warning once."""
        also = {name: next((one for one in (name, *others) if one in row), name) for name, others in ALSO.items()}
        columns = {name: theirs for name, theirs in also.items() if theirs in row} | dict(self._columns)
        known = [name for name in row if name not in self._others or name in columns.values()]
        taken = columns_read(where, known, COLUMNS, columns)
        self._others.update(name for name in row if name not in taken.values())
        return {name: row[theirs] for name, theirs in taken.items() if row[theirs] is not None}

    @staticmethod
    def image(where: str, cells: Mapping[str, Any], image: Path | bytes, key: str, side: str = "") -> LabelledImage:
        """Return the labelled image of a row; `cells` are those of `self.cells`, `key` its id if it has none."""
        content = {name: cells[name] for name in cells if name != "image"}
        if isinstance(boxes := content.get("objects"), list):  # one object a box, instead of one list a field
            boxes = [one if isinstance(one, dict) else {} for one in boxes]
            content["objects"] = {name: [one.get(name) for one in boxes] for name in (boxes[0] if boxes else {})}
        row = strict_json.parsed(content, _Row, f"{where}: ", kind=SourceError)
        return LabelledImage(
            where,
            key if row.id is None else str(row.id),
            image,
            _labels(where, row),
            domain=row.domain,
            genus=row.genus,
            licence=row.licence or "",
            split=SIDES.get(side),
        )


def _labels(where: str, row: _Row) -> Sequence[Label]:
    whole = [Label(f"{where}: field entity", row.entity)] if row.entity else []
    if not row.objects:
        return whole
    name = next((one for one in NAMES if one in row.objects), "")
    content = {"bbox": row.objects.get("bbox", []), "names": row.objects.get(name, [])}
    boxes = strict_json.parsed(content, _Boxes, f"{where}: field objects: ", kind=SourceError)
    names = boxes.names or [row.entity or ""] * len(boxes.bbox)
    if len(names) != len(boxes.bbox) or not all(names):
        raise SourceError(f"{where}: field objects: {len(boxes.bbox)} boxes, but {len(boxes.names)} names for them")
    if row.entity and not boxes.names and not boxes.bbox:
        return whole
    places = zip(names, boxes.bbox, strict=True)
    return [Label(f"{where}: field objects.bbox[{n}]", name, box, "xywh") for n, (name, box) in enumerate(places)]
