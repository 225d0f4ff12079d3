"""A table of labelled photos: one row per box. Commas, semicolons or tabs divide its cells.

Columns: image (path, relative to the table's folder), entity, domain (optional with --domain), x1,y1,x2,y2 or
x1,y1,w,h (pixels of the image after EXIF rotation), and optionally genus, id and licence. A photo may show several
entities.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mllm.data.source_files import SourceError, check_count, find_file, make_box, need_domain, need_input, read_size
from mllm.data.sources import Label, PhotoRequest, one_photo, things_of
from mllm.io.csv_tables import Placed, by_image, check_same, checked_rows, numbers_of
from mllm.records import Photo

CORNERS, SIDES = ("x1", "y1", "x2", "y2"), ("x1", "y1", "w", "h")
COLUMNS = ("image", "entity", "domain", "genus", "id", "licence", *CORNERS, "w", "h")


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the photos in the order in which the table first names them."""
    file = need_input(request, "file")
    needed, optional = COLUMNS[:2], COLUMNS[2:]
    rows = list(checked_rows(file, needed, optional, filled=needed, columns=request.columns or None))
    given = tuple(name for name in (*CORNERS, "w", "h") if name in rows[0][1])
    if given not in ((), CORNERS, SIDES):
        raise SourceError(f"{file}:1: box columns are {','.join(given)}; give {','.join(CORNERS)} or {','.join(SIDES)}")
    ids: dict[str, Placed] = {}
    for where, row in rows:
        key = row.get("id") or row["image"]
        earlier, first = ids.setdefault(key, (where, row))
        if first["image"] != row["image"]:
            raise SourceError(f"{where}: field id: {key!r} was used before for another image, at {earlier}")
    for image, group in by_image(rows).items():
        with one_photo(request):
            yield _photo(file, image, group, request)


def _photo(file: Path, image: str, rows: list[Placed], request: PhotoRequest) -> Photo:
    where, first = rows[0]
    check_same(rows, ("id", "licence"))
    path = find_file(file.parent, image)
    frame = read_size(path, f"{where}: field image")
    check_count(rows, where)
    order, columns = ("xywh", SIDES) if "w" in first else ("xyxy", CORNERS)
    labels: list[Label] = []
    for place, row in rows:
        box = None
        if (numbers := numbers_of(row, columns, place)) is not None:
            box = make_box(numbers, frame, f"{place}: fields {','.join(columns)}", order=order, clip=request.clip_boxes)
            if box in (other for _, _, other in labels):
                raise SourceError(f"{place}: the same box of {image} was given before (duplicate row)")
        domain = need_domain(row.get("domain") or request.domain, f"{place}: field domain")
        labels.append((row["entity"], domain, box))
    genera = {row["entity"]: row.get("genus") for _, row in rows}
    return Photo(
        id=first.get("id") or image,
        image=str(path.resolve()),
        size=frame,
        things=tuple(replace(one, genus=genera[one.entity] or None) for one in things_of(labels, where, request)),
        licence=first.get("licence") or request.licence,
        provenance={"source": "csv"},
    )
