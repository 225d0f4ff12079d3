"""COCO instance annotations: the category's name is the entity.

The json lies beside its images, or beside a folder `images`. An image of several categories is one photo of several
kinds. Crowd regions get no box: the photo notes that the category is there, too. A warning counts them, and the images
that are skipped.
"""

import logging
from collections import Counter
from collections.abc import Iterator

from mllm.data.coco_files import Coco, CocoAnnotation, find_image, read_coco
from mllm.data.source_files import SourceError, need_domain, need_input
from mllm.data.sources import PhotoRequest, one_photo, things_of
from mllm.records import Photo, PhotoThing

log = logging.getLogger(__name__)


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images with instances, in the order of the file."""
    file = need_input(request, "file")
    coco = read_coco(file)
    skipped: Counter[str] = Counter()
    passed = 0
    for key, image in coco.images.items():
        rows = coco.instances.get(key, [])
        crowds = [_label(coco, row, request) for _, row in rows if row.iscrowd]
        passed += len(crowds)
        if len(crowds) == len(rows):
            skipped["crowds alone" if rows else "no annotation"] += 1
            continue
        with one_photo(request):
            found = find_image(file, image)
            boxed = [row for row in rows if not row[1].iscrowd]
            boxes = found.boxes(boxed, clip=request.clip_boxes)
            labels = [(*_label(coco, row, request), box) for (_, row), box in zip(boxed, boxes, strict=True)]
            yield Photo(
                id=str(key),
                image=str(found.path.resolve()),
                size=found.size,
                things=things_of(labels, image[0], request),
                crowds=tuple(dict.fromkeys(PhotoThing(name, need_domain(domain, image[0])) for name, domain in crowds)),
                licence=request.licence,
                provenance={"source": "coco"},
            )
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
    if skipped.total() == len(coco.images):
        raise SourceError(f"{file}: no image has an instance with a box ({reasons}); nothing can be used")
    if skipped or passed:
        counts = f"{passed} crowd regions passed over; {skipped.total()} of {len(coco.images)} images skipped"
        log.warning("%s: %s (%s)", file, counts, reasons or "none")


def _label(coco: Coco, row: CocoAnnotation, request: PhotoRequest) -> tuple[str, str | None]:
    category = coco.categories[row.category_id][1]
    return category.name, request.domain or category.supercategory
