"""COCO caption annotations (`captions_*.json`): every person's caption of an image is an annotation of its own.

The json lies beside its images, or beside a folder `images`. If it also holds instances (annotations with `bbox` and
`category_id`, and the list `categories`), they become the image's things: merge the two official files for that.
Images without a caption are skipped; a warning counts them. Terms are read from the list `licenses`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat

from mllm.data.caption_sources import CaptionRequest, sample_of_file
from mllm.data.coco_files import CocoCategory, CocoImage, Id, Placed, by_id, find_image
from mllm.data.source_files import SourceError, need_input
from mllm.io import strict_json
from mllm.records import Sample, Thing

log = logging.getLogger(__name__)


class CocoAnnotation(BaseModel):
    """A caption or an instance."""

    id: Id
    image_id: Id
    caption: str | None = None
    bbox: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)] | None = None
    category_id: Id | None = None
    iscrowd: bool | int = 0


class CocoLicence(BaseModel):
    """An entry of `licenses`."""

    id: Id
    name: str
    url: str = ""


class CaptionFile(BaseModel):
    """What is read of the file."""

    images: Annotated[list[CocoImage], Field(min_length=1)]
    annotations: Annotated[list[CocoAnnotation], Field(min_length=1)]
    categories: list[CocoCategory] = []
    licenses: list[CocoLicence] = []


Annotations = dict[Any, list[Placed[CocoAnnotation]]]


def images(request: CaptionRequest) -> Iterator[Sample]:
    """Yield the captioned images, in the order of the file."""
    file = need_input(request, "file")
    content = strict_json.read(file, CaptionFile, kind=SourceError)
    images = by_id(file, "images", content.images)
    categories = by_id(file, "categories", content.categories)
    licences = by_id(file, "licenses", content.licenses)
    terms = {key: f"{one.row.name} {one.row.url}".strip() for key, one in licences.items()}
    captions, instances = _annotations(file, content, images, categories)
    if without := len(images) - len(captions):
        log.warning("%s: %d of %d images skipped: they have no caption", file, without, len(images))
    for key, image in images.items():
        if key in captions:
            texts = [str(one.row.caption) for one in captions[key]]
            found, where = find_image(file, image), captions[key][0].where
            facts = {"licence": "" if request.licence else terms.get(image.row.license, "")}
            sample = sample_of_file(str(key), found.path, texts, where, request=request, source="coco", facts=facts)
            # Clipped: COCO's own boxes leave images by a fraction of a pixel, and these answer no question.
            boxes = found.boxes(instances.get(key, ()), clip=True)
            names = [categories[one.row.category_id].row.name for one in instances.get(key, ())]
            yield replace(sample, things=tuple(map(Thing, names, boxes)))


def _annotations(
    file: Path, content: CaptionFile, images: Mapping[Any, Any], categories: Mapping[Any, Any]
) -> tuple[Annotations, Annotations]:
    """Group the annotations by image: captions, and instances that are not crowds."""
    captions: Annotations = {}
    instances: Annotations = {}
    for one in by_id(file, "annotations", content.annotations).values():
        row = one.row
        if row.image_id not in images:
            raise SourceError(f"{one.where}: field image_id: {row.image_id!r} is in no entry of the images list")
        if row.caption is not None:
            if not row.caption.strip():
                raise SourceError(f"{one.where}: field caption: a text is needed, got {row.caption!r:.60}")
            captions.setdefault(row.image_id, []).append(one)
        elif row.bbox is None or row.category_id not in categories:
            raise SourceError(
                f"{one.where}: neither a caption nor an instance (bbox, and a category_id of the categories)"
            )
        elif not row.iscrowd:
            instances.setdefault(row.image_id, []).append(one)
    return captions, instances
