"""Image Textualization (Pi et al. 2024, arXiv 2406.07502): a description, checked against the image, then enriched.

Each of the largest things that the source lists (in the paper: that detectors find) is described from a crop, with its
place and size in words, and merged in; what the checker does not see is dropped. Human captions are not used.
"""

from mllm.boxes import Box
from mllm.synthesis.capabilities import Edits, Sees
from mllm.synthesis.captioning import CaptionRejected, CaptionTask, Helpers, check_details_kept, drop_unseen

NEEDS = (Edits, Sees)
CHECKED = True
MOST_THINGS = 10
_LARGE, _SMALL = 0.25, 0.02
"""Shares of the image area from which a thing is called large, and below which it is called small."""


def write(task: CaptionTask, helpers: Helpers) -> str:
    """Describe, check and drop, add the things, check and drop."""
    described = helpers.writer.describe(task.look(), seed=task.seed)
    if not (draft := drop_unseen(task, (), described, helpers.checker)):
        raise CaptionRejected("nothing that was described can be seen")
    if not (things := close_up(task, helpers, task.seed)):
        return draft
    caption = drop_unseen(task, [draft], helpers.writer.expand(draft, things, seed=task.seed), helpers.checker)
    check_details_kept([draft], caption, helpers.limits)
    return caption


def close_up(task: CaptionTask, helpers: Helpers, seed: int) -> str:
    """Describe the largest things one by one, each from a crop, with its place; "" if no thing is known."""
    things = sorted(task.sample.things, key=lambda thing: -thing.box.area)[:MOST_THINGS]
    task.notes["things described"] += len(things)
    texts = [helpers.writer.describe(task.look(thing), seed=seed).strip().rstrip(".") for thing in things]
    return " ".join(f"{text}, {place(thing.box)}." for text, thing in zip(texts, things, strict=True))


def place(box: Box) -> str:
    """Say where a box of the unit frame is and how large it is, for instance `large, at the top left`."""
    x, y = box.center
    rows, columns = ("top", "", "bottom"), ("left", "", "right")
    where = f"{rows[min(int(3 * y), 2)]} {columns[min(int(3 * x), 2)]}".strip()
    size = "large, " if box.area >= _LARGE else "small, " if box.area < _SMALL else ""
    return f"{size}at the {where}" if where else f"{size}in the middle"
