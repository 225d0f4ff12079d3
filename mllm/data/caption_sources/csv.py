"""A table of captions: one row for each caption of an image.

Columns: image (path, relative to the table's folder), caption, and, where wanted, id, domain, entity (what is on the
image, for `gist`) and licence. Several rows of one image are captions by several people.
"""

from __future__ import annotations

from collections.abc import Iterator

from mllm.data.caption_sources import Request, of_a_file
from mllm.data.sources import SourceError, need_input
from mllm.data.sources.csv import Row, rows_of
from mllm.records import Sample

DOMAIN = "scene"
SAME = ("id", "domain", "entity", "licence")


def images(request: Request) -> Iterator[Sample]:
    """Yield the images in the order in which the table first names them."""
    file = need_input(request, "file")
    groups: dict[str, list[tuple[str, Row]]] = {}
    for where, row in rows_of(file, ("image", "caption"), SAME):
        for column in ("image", "caption"):
            if not row[column]:
                raise SourceError(f"{where}: field {column} is empty")
        groups.setdefault(row["image"], []).append((where, row))
    for image, rows in groups.items():
        where, first = rows[0]
        for other, row in rows[1:]:
            for column in SAME:
                if row.get(column) != first.get(column):
                    raise SourceError(
                        f"{other}: field {column}: {row.get(column)!r} differs from {first.get(column)!r}, given for"
                        f" the same image at {where}"
                    )
        yield of_a_file(
            first.get("id") or image, file.parent / image, [row["caption"] for _, row in rows], f"{where}: field image",
            domain=first.get("domain") or request.domain or DOMAIN, entity=first.get("entity", ""),
            licence=first.get("licence") or request.licence, source="csv",
        )  # fmt: skip
