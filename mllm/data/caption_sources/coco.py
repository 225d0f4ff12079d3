"""COCO caption annotations (`captions_*.json`): every person's caption of an image is an annotation of its own.

The json lies beside its images, or beside a folder `images`. Instances (merge the two official files for that) become
the image's things. Images without a caption are skipped; a warning counts them.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

from mllm.data.caption_sources import CaptionRequest, sample_of_file
from mllm.data.coco_files import find_image, read_coco
from mllm.data.source_files import need_input
from mllm.io import words
from mllm.records import Sample, Thing

log = logging.getLogger(__name__)


def images(request: CaptionRequest) -> Iterator[Sample]:
    """Yield the captioned images, in the order of the file."""
    file = need_input(request, "file")
    coco = read_coco(file)
    terms = {key: f"{row.name} {row.url}".strip() for key, (_, row) in coco.licences.items()}
    if without := len(coco.images) - len(coco.captions):
        log.warning("%s: %d of %d images skipped: they have no caption", file, without, len(coco.images))
    for key, image in coco.images.items():
        if captions := coco.captions.get(key):
            found, texts = find_image(file, image), [str(row.caption) for _, row in captions]
            facts = {"licence": request.licence or terms.get(image[1].license, "")}
            where = captions[0][0]
            sample = sample_of_file(str(key), found.path, texts, where, request=request, source="coco", facts=facts)
            instances = [one for one in coco.instances.get(key, ()) if not one[1].iscrowd]
            # Clipped: COCO's own boxes leave images by a fraction of a pixel, and these answer no question.
            boxes = found.boxes(instances, clip=True)
            names = [words.name(coco.categories[row.category_id][1].name) for _, row in instances]
            yield replace(sample, things=tuple(map(Thing, names, boxes)))
