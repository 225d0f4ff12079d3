"""A table of labelled photos: one row for each box.

Columns: image (path, relative to the table's folder), entity, domain (optional with --domain), x1,y1,x2,y2 or
x1,y1,w,h (pixels of the image as people see it, after EXIF orientation), and, where wanted, id and licence.
Several rows of one image are several boxes of its one entity.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from mllm.boxes import Box
from mllm.data.sources import (
    MOST_BOXES,
    Request,
    SourceError,
    boxes_or_whole,
    make_box,
    need_domain,
    need_input,
    one_photo,
    read_text,
    source_image_size,
)
from mllm.records import Photo

CORNERS, SIDES = ("x1", "y1", "x2", "y2"), ("x1", "y1", "w", "h")
Row = dict[str, str]


def photos(request: Request) -> Iterator[Photo]:
    """Yield the photos in the order in which the table first names them."""
    file = need_input(request, "file")
    groups: dict[str, list[tuple[str, Row]]] = {}
    ids: dict[str, tuple[str, str]] = {}
    for where, row in rows_of(file, ("image", "entity"), ("domain", "id", "licence", *CORNERS, "w", "h")):
        for column in ("image", "entity"):
            if not row[column]:
                raise SourceError(f"{where}: field {column} is empty")
        key = row.get("id") or row["image"]
        earlier, image = ids.setdefault(key, (where, row["image"]))
        if image != row["image"]:
            raise SourceError(f"{where}: field id: {key!r} was used before for another image, at {earlier}")
        groups.setdefault(row["image"], []).append((where, row))
    for image, rows in groups.items():
        with one_photo(request):
            yield _photo(file, image, rows, request)


def _photo(file: Path, image: str, rows: list[tuple[str, Row]], request: Request) -> Photo:
    """Join the rows of one image."""
    where, first = rows[0]
    for column in ("entity", "domain", "id", "licence"):
        for other, row in rows[1:]:
            if row.get(column) != first.get(column):
                raise SourceError(
                    f"{other}: field {column}: {row.get(column)!r} differs from {first.get(column)!r}, given for the"
                    f" same image at {where}; a photo shows one entity"
                )
    path = file.parent / image
    frame = source_image_size(path, f"{where}: field image")
    if len(rows) > MOST_BOXES:
        raise SourceError(f"{where}: {len(rows)} boxes; at most {MOST_BOXES} of one image are taken")
    boxes: list[Box] = []
    for place, row in rows:
        order, columns = ("xywh", SIDES) if "w" in row else ("xyxy", CORNERS)
        numbers = numbers_of(row, columns, place)
        if numbers is None:
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


def rows_of(file: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield (file:line, row) of a csv table after checking its header. Values are stripped texts."""
    header, lines = table(file)
    if not header:
        raise SourceError(f"{file}: the file is empty; its first line names the columns: {', '.join(needed)}, ...")
    _check_header(file, header, needed, (*needed, *optional))
    count = 0
    for where, row in lines:
        if None in row or None in row.values():
            raise SourceError(f"{where}: the row has not as many cells as the header ({len(header)})")
        count += 1
        yield where, {name: value.strip() for name, value in row.items()}
    if not count:
        raise SourceError(f"{file}: the table has a header and no rows")


def table(file: Path) -> tuple[list[str], Iterator[tuple[str, dict[Any, Any]]]]:
    """Open any csv table: its header, and its rows as `csv.DictReader` gives them, each with file:line.

    Raises:
        SourceError: not UTF-8, or what csv itself refuses, such as a cell of over 128 KiB (when it is reached).
    """
    reader = csv.DictReader(StringIO(read_text(file), newline=""))

    def broken(error: csv.Error) -> SourceError:
        return SourceError(f"{file}:{reader.line_num + 1}: broken csv: {error}; is a quote left open?")

    def lines() -> Iterator[tuple[str, dict[Any, Any]]]:
        try:
            for row in reader:
                yield f"{file}:{reader.line_num}", row
        except csv.Error as error:
            raise broken(error) from None

    try:
        header = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise broken(error) from None
    reader.fieldnames = header
    return header, lines()


def _check_header(file: Path, header: list[str], needed: Sequence[str], known: Sequence[str]) -> None:
    """Refuse unknown, missing, repeated and half-given columns."""
    for name in header:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise SourceError(f"{file}:1: unknown column {name!r}.{hint} Known: {', '.join(known)}.")
        if header.count(name) > 1:
            raise SourceError(f"{file}:1: column {name!r} is there twice")
    for name in needed:
        if name not in header:
            raise SourceError(f"{file}:1: column {name!r} is missing; found: {', '.join(header)}")
    given = [name for name in (*CORNERS, "w", "h") if name in header]
    if given and tuple(given) not in (CORNERS, SIDES):
        raise SourceError(f"{file}:1: box columns are {','.join(given)}; give {','.join(CORNERS)} or {','.join(SIDES)}")


def numbers_of(row: Row, columns: Sequence[str], where: str) -> tuple[float, ...] | None:
    """Return the numbers of the named columns; None where the row leaves them all empty or the table lacks them."""
    texts = [row.get(column, "") for column in columns]
    if not any(texts):
        return None
    numbers = []
    for column, text in zip(columns, texts, strict=True):
        try:
            numbers.append(float(text))
        except ValueError:
            raise SourceError(f"{where}: field {column}: a number is needed, got {text!r}") from None
    return tuple(numbers)
