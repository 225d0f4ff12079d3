"""COCO instance annotations: the category's name is the entity.

The json lies beside its images, or beside a folder `images`. A photo shows one entity here: images with instances of
several categories are skipped, and so are crowds; a warning counts them.
"""

import logging
from collections import Counter
from collections.abc import Iterator

from mllm.data.coco_files import find_image, read_coco
from mllm.data.source_files import SourceError, need_domain, need_input
from mllm.data.sources import PhotoRequest, boxes_or_whole, one_photo
from mllm.records import Photo

log = logging.getLogger(__name__)


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images that show one category, in the order of the file."""
    file = need_input(request, "file")
    coco = read_coco(file)
    skipped: Counter[str] = Counter()
    for key, image in coco.images.items():
        rows = coco.instances.get(key, [])
        kinds, crowds = {row.category_id for _, row in rows}, any(row.iscrowd for _, row in rows)
        if crowds or len(kinds) != 1:
            skipped["crowds" if crowds else "several categories" if kinds else "no annotation"] += 1
            continue
        with one_photo(request):
            found, where, category = find_image(file, image), image[0], coco.categories[kinds.pop()][1]
            boxes = dict.fromkeys(found.boxes(rows, clip=request.clip_boxes))  # COCO holds a few instances twice
            yield Photo(
                id=str(key),
                image=str(found.path.resolve()),
                size=found.size,
                domain=need_domain(request.domain or category.supercategory, where),
                entity=category.name,
                boxes=boxes_or_whole(list(boxes), where, request),
                licence=request.licence,
                provenance={"source": "coco"},
            )
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
    if skipped.total() == len(coco.images):
        raise SourceError(f"{file}: no image shows exactly one category ({reasons}); nothing can be used")
    if skipped:
        log.warning("%s: %d of %d images skipped (%s)", file, skipped.total(), len(coco.images), reasons)
