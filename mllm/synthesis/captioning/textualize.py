"""Image Textualization (Pi et al. 2024, arXiv 2406.07502): a description, checked against the image, then enriched.

A model describes the image; what the checker does not see is dropped. Each of the image's largest things is then
described from close by, with its place and size in words, and worked in, and what is new by that is checked too. Needs
no caption of people, and does not look at theirs. (The paper finds its things by detectors and adds their distance by
a depth model; here they are those of the source.)
"""

from __future__ import annotations

from mllm.boxes import Box
from mllm.records import Thing
from mllm.synthesis.capabilities import Edits, Sees
from mllm.synthesis.captioning import Aid, Image, Refused, keep_what_was_said, only_seen

NEEDS = (Edits, Sees)
CHECKED = True
MOST_THINGS = 10
_LARGE, _SMALL = 0.25, 0.02
"""Shares of the image's area from which on, and below which, a thing is called so."""


def boost(image: Image, aid: Aid) -> str:
    """Describe, check and drop, add the things, check and drop."""
    described = aid.writer.describe(image.look(), seed=image.seed)
    draft = only_seen(image, (), described, aid.checker)
    if not draft:
        raise Refused("nothing that was described can be seen")
    told = close_up(image, aid, image.seed)
    if not told:
        return draft
    caption = only_seen(image, [draft], aid.writer.expand(draft, told, seed=image.seed), aid.checker)
    keep_what_was_said([draft], caption, aid.limits)
    return caption


def close_up(image: Image, aid: Aid, seed: int) -> str:
    """Describe the largest things one by one, each from close by, with its place; "" where no thing is known."""
    things = sorted(image.sample.things, key=lambda thing: -thing.box.area)[:MOST_THINGS]
    image.notes["things described"] += len(things)
    return " ".join(_described(image, aid, thing, seed) for thing in things)


def _described(image: Image, aid: Aid, thing: Thing, seed: int) -> str:
    """One thing as the writer sees it, and where it is."""
    text = aid.writer.describe(image.look(thing), seed=seed).strip().rstrip(".")
    return f"{text}, {place(thing.box)}."


def place(box: Box) -> str:
    """Say where a box of the unit frame is and how large, as `large, at the top left`."""
    x, y = box.center
    rows, columns = ("top", "", "bottom"), ("left", "", "right")
    where = f"{rows[min(int(3 * y), 2)]} {columns[min(int(3 * x), 2)]}".strip()
    size = "large, " if box.area >= _LARGE else "small, " if box.area < _SMALL else ""
    return f"{size}at the {where}" if where else f"{size}in the middle"
