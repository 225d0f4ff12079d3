"""COCO caption annotations (`captions_*.json`): every person's caption of an image is an annotation of its own.

The json lies beside its images, or beside a folder `images`. Where it also holds instances (annotations with `bbox`
and `category_id`, and the list `categories`), they become the image's things: merge the two official files for that.
Images without a caption are passed over; a warning counts them. Terms are read from the list `licenses`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.data.caption_sources import Request, of_a_file
from mllm.data.sources import SourceError, need_input
from mllm.data.sources.coco import boxes, by_id, find, read
from mllm.records import Sample, Thing

log = logging.getLogger(__name__)
DOMAIN = "scene"

Row = tuple[str, Any]
"""Where an entry of the json stands, and the entry."""


def images(request: Request) -> Iterator[Sample]:
    """Yield the captioned images, in the order of the file."""
    file = need_input(request, "file")
    content = read(file, ("images", "annotations"))
    images = by_id(file, content, "images", ("id", "file_name"))
    categories = by_id(file, content, "categories", ("id", "name")) if content.get("categories") else {}
    told, seen = _annotations(file, content, images, categories)
    terms = _terms(file, content)
    without = [key for key in images if key not in told]
    if without:
        log.warning("%s: %d of %d images passed over: nobody captioned them", file, len(without), len(images))
    for key in told:
        where, image = images[key]
        path, size = find(file, where, image)
        captions = [row["caption"] for _, row in told[key]]
        licence = request.licence or terms.get(image.get("license"), "")
        sample = of_a_file(
            str(key), path, captions, told[key][0][0], domain=request.domain or DOMAIN, licence=licence, source="coco"
        )
        # Cut at the edge: COCO's own boxes leave images by a fraction of a pixel, and these answer no question.
        found = boxes(path, size, where, image, seen.get(key, ()), clip=True)
        things = tuple(
            Thing(categories[row["category_id"]][1]["name"], box)
            for box, (_, row) in zip(found, seen.get(key, ()), strict=True)
        )
        yield replace(sample, things=things)


def _annotations(
    file: Path, content: dict[str, Any], images: Mapping[Any, Row], categories: Mapping[Any, Row]
) -> tuple[dict[Any, list[Row]], dict[Any, list[Row]]]:
    """Group the annotations by image: captions, and instances that are no crowds. Images keep the file's order."""
    told: dict[Any, list[Row]] = {}
    seen: dict[Any, list[Row]] = {}
    for where, row in by_id(file, content, "annotations", ("id", "image_id")).values():
        if row["image_id"] not in images:
            raise SourceError(f"{where}: field image_id: {row['image_id']!r} is in no entry of the images list")
        if "caption" in row:
            if not isinstance(row["caption"], str) or not row["caption"].strip():
                raise SourceError(f"{where}: field caption: a text is needed, got {row['caption']!r:.60}")
            told.setdefault(row["image_id"], []).append((where, row))
        elif "bbox" not in row or row.get("category_id") not in categories:
            raise SourceError(f"{where}: neither a caption nor an instance (bbox, and a category_id of the categories)")
        elif not row.get("iscrowd"):
            seen.setdefault(row["image_id"], []).append((where, row))
    return {key: told[key] for key in images if key in told}, seen


def _terms(file: Path, content: dict[str, Any]) -> dict[Any, str]:
    """Return the terms by the number under which images refer to them."""
    rows = by_id(file, content, "licenses", ("id", "name")) if isinstance(content.get("licenses"), list) else {}
    return {key: " ".join(str(row[part]) for part in ("name", "url") if part in row) for key, (_, row) in rows.items()}
