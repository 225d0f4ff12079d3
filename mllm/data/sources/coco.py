"""COCO instance annotations: the category's name is the entity.

The json lies beside its images, or beside a folder `images`. A photo shows one entity here: images with instances of
several categories are skipped, and so are crowds; a warning counts them. Boxes are `[left, top, width, height]` in
pixels. For images with an EXIF rotation, the json's width and height tell which way round they were annotated.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from mllm.data.coco_files import CocoCategory, CocoImage, CocoInstance, Placed, by_id, find_image
from mllm.data.source_files import SourceError, need_domain, need_input
from mllm.data.sources import PhotoRequest, boxes_or_whole, one_photo
from mllm.io import strict_json
from mllm.records import Photo

log = logging.getLogger(__name__)


class InstanceFile(BaseModel):
    """What is read of the file."""

    images: Annotated[list[CocoImage], Field(min_length=1)]
    annotations: Annotated[list[CocoInstance], Field(min_length=1)]
    categories: Annotated[list[CocoCategory], Field(min_length=1)]


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images that show one category, in the order of the file."""
    file = need_input(request, "file")
    content = strict_json.read(file, InstanceFile, kind=SourceError)
    categories = by_id(file, "categories", content.categories)
    images = by_id(file, "images", content.images)
    found: dict[Any, list[Placed[CocoInstance]]] = {}
    for one in by_id(file, "annotations", content.annotations).values():
        for field, known in (("image_id", images), ("category_id", categories)):
            if getattr(one.row, field) not in known:
                value = getattr(one.row, field)
                raise SourceError(f"{one.where}: field {field}: {value!r} is in no entry of the {field[:-3]} list")
        found.setdefault(one.row.image_id, []).append(one)
    skipped: Counter[str] = Counter()
    for key, image in images.items():
        rows = found.get(key, [])
        if reason := _unusable(rows):
            skipped[reason] += 1
            continue
        with one_photo(request):
            yield _photo(file, image, rows, categories[rows[0].row.category_id].row, request)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
    if skipped.total() == len(images):
        raise SourceError(f"{file}: no image shows exactly one category ({reasons}); nothing can be used")
    if skipped:
        log.warning("%s: %d of %d images skipped (%s)", file, skipped.total(), len(images), reasons)


def _unusable(rows: list[Placed[CocoInstance]]) -> str:
    """Return why an image with these annotations is skipped, "" if it is not."""
    if any(one.row.iscrowd for one in rows):
        return "crowds"
    kinds = {one.row.category_id for one in rows}
    return "" if len(kinds) == 1 else "several categories" if kinds else "no annotation"


def _photo(
    file: Path,
    image: Placed[CocoImage],
    rows: list[Placed[CocoInstance]],
    category: CocoCategory,
    request: PhotoRequest,
) -> Photo:
    """Make one photo of an image and its instances."""
    found = find_image(file, image)
    boxes = dict.fromkeys(found.boxes(rows, clip=request.clip_boxes))  # COCO itself holds a few instances twice
    return Photo(
        id=str(image.row.id),
        image=str(found.path.resolve()),
        size=found.size,
        domain=need_domain(request.domain or category.supercategory, image.where),
        entity=category.name,
        boxes=boxes_or_whole(list(boxes), image.where, request),
        licence=request.licence,
        provenance={"source": "coco"},
    )
