"""Boxes for photos without one: a teacher points twice, and a box is used only if both answers agree.

The second opinion comes from another teacher, or from the same teacher with another seed (self-consistency).
DeepPerception's boxes came from one model's single answer (arXiv 2503.12797, appendix B.1); agreement can be checked
without human annotation.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mllm.boxes import iou
from mllm.records import Photo
from mllm.synthesis.capabilities import Look, Points

AGREED_AT = 0.7
"""Least IoU at which two answers agree."""
NOTHING, MANY, APART = "no box was found", "more than one box was found", "two opinions disagree"


def point(
    photo: Photo, image: Path, first: Points, second: Points, *, seed: int = 0, agreed_at: float = AGREED_AT
) -> Photo:
    """Return the photo with the first answer's box, or without a box and with the reason in `rejected`.

    A photo with boxes is returned unchanged. `second` may be `first`: it is asked with another seed.
    """
    if photo.boxes:
        return photo
    look = Look(image, photo.domain, facts=photo.marks)
    found, again = first.point(look, photo.entity, seed=seed), second.point(look, photo.entity, seed=seed + 1)
    if min(len(found), len(again)) == 0:
        return _left_out(photo, NOTHING)
    if max(len(found), len(again)) > 1:
        return _left_out(photo, MANY)
    agreement = iou(found[0], again[0])
    if agreement < agreed_at:
        return _left_out(photo, APART)
    provenance = {**photo.provenance, "box": "teacher", "agreement": round(agreement, 4)}
    return replace(photo, boxes=found, provenance=provenance)


def _left_out(photo: Photo, reason: str) -> Photo:
    return replace(photo, rejected=reason)
