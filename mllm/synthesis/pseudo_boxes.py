"""Boxes for photos that have none: a teacher points twice, and only what both answers agree on is taken.

The second opinion is another teacher's, or the same teacher's under another seed (self-consistency). DeepPerception's
boxes came from one model's single answer (arXiv 2503.12797, appendix B.1); agreement is what can be checked without a
person.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mllm.boxes import iou
from mllm.records import Photo
from mllm.synthesis.capabilities import Look, Points

AGREED_AT = 0.7
"""Least IoU of two answers that count as one."""
NOTHING, MANY, APART = "no box was found", "more than one box was found", "two opinions disagree"
FAULT = "no box"
"""Key of `provenance` that says why a photo is left out."""


def point(
    photo: Photo, image: Path, first: Points, second: Points, *, seed: int = 0, agreed_at: float = AGREED_AT
) -> Photo:
    """Return the photo with its box (the first answer's), or without one and the reason in `provenance`.

    A photo that has boxes is returned as it is. `second` may be `first`: it is asked under another seed.
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
    told = {**photo.provenance, "box": "teacher", "agreement": round(agreement, 4)}
    return replace(photo, boxes=found, provenance=told)


def _left_out(photo: Photo, reason: str) -> Photo:
    return replace(photo, provenance={**photo.provenance, FAULT: reason})
