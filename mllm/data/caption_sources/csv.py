"""A table of captions: one row for each caption of an image.

Columns: image (path, relative to the table's folder), caption, and optionally id, domain, entity (what is in the image,
for `gist`) and licence. Several rows of one image are captions by several people.
"""

from collections.abc import Iterator

from mllm.data.caption_sources import CaptionRequest, sample_of_file
from mllm.data.source_files import find_file, need_input
from mllm.io.csv_tables import by_image, check_same, checked_rows
from mllm.records import Sample

OPTIONAL = ("id", "domain", "entity", "licence")


def images(request: CaptionRequest) -> Iterator[Sample]:
    """Yield the images in the order in which the table first names them."""
    file, needed = need_input(request, "file"), ("image", "caption")
    for image, rows in by_image(checked_rows(file, needed, OPTIONAL, filled=needed)).items():
        check_same(rows, OPTIONAL)
        (where, first), captions = rows[0], [row["caption"] for _, row in rows]
        yield sample_of_file(
            first.get("id") or image, find_file(file.parent, image), captions, f"{where}: field image",
            request=request, source="csv", facts=first,
        )  # fmt: skip
