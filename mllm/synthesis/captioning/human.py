"""As given: one of the captions that people wrote, word for word. Of the pocket world's people, who each leave most
out, that is the sparse caption; on COCO it is what captioners have always been trained on."""

from __future__ import annotations

from mllm.synthesis.captioning import Aid, Image

NEEDS = ()


def boost(image: Image, aid: Aid) -> str:
    """Take the caption of the person whose turn it is."""
    return image.given[image.seed % len(image.given)]
