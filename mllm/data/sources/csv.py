"""A table of labelled photos: one row per box. Commas, semicolons or tabs divide its cells.

Columns: image (path, relative to the table's folder), entity, domain (optional with --domain), x1,y1,x2,y2 or
x1,y1,w,h (pixels of the image after EXIF rotation), and optionally id and licence. A photo shows one entity.
"""

from collections.abc import Iterator
from pathlib import Path

from mllm.boxes import Box
from mllm.data.source_files import SourceError, check_count, find_file, make_box, need_domain, need_input, read_size
from mllm.data.sources import PhotoRequest, boxes_or_whole, one_photo
from mllm.io.csv_tables import Placed, by_image, check_same, checked_rows, numbers_of
from mllm.records import Photo

CORNERS, SIDES = ("x1", "y1", "x2", "y2"), ("x1", "y1", "w", "h")
COLUMNS = ("image", "entity", "domain", "id", "licence", *CORNERS, "w", "h")


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
    check_same(rows, ("entity", "domain", "id", "licence"), "; a photo shows one entity")
    path = find_file(file.parent, image)
    frame = read_size(path, f"{where}: field image")
    check_count(rows, where)
    order, columns = ("xywh", SIDES) if "w" in first else ("xyxy", CORNERS)
    boxes: list[Box] = []
    for place, row in rows:
        if (numbers := numbers_of(row, columns, place)) is None:
            continue
        box = make_box(numbers, frame, f"{place}: fields {','.join(columns)}", order=order, clip=request.clip_boxes)
        if box in boxes:
            raise SourceError(f"{place}: the same box of {image} was given before (duplicate row)")
        boxes.append(box)
    return Photo(
        id=first.get("id") or image,
        image=str(path.resolve()),
        size=frame,
        domain=need_domain(first.get("domain") or request.domain, f"{where}: field domain"),
        entity=first["entity"],
        boxes=boxes_or_whole(boxes, where, request),
        licence=first.get("licence") or request.licence,
        provenance={"source": "csv"},
    )
