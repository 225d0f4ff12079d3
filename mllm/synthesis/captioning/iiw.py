"""ImageInWords (Garg et al. 2024, arXiv 2405.02793) with a model instead of annotators: describe and revise.

The draft is a blend of the human captions, or a description. Each of at most `--rounds` rounds merges in a new
description, first of every thing, then of the image; the checker drops what it does not see. Human captions win.
"""

from mllm.synthesis import captioning
from mllm.synthesis.capabilities import Edits, Sees
from mllm.synthesis.captioning import CaptionRejected, CaptionTask, Helpers, blend, drop_unseen
from mllm.synthesis.captioning.textualize import close_up

NEEDS = (Edits, Sees)
CHECKED = True
_ROUND_SEED = 1009
"""Distance between the seeds of two rounds: large enough that no other attempt at the caption uses the same seed."""


def write(task: CaptionTask, helpers: Helpers) -> str:
    """Draft, then revise round after round."""
    human = blend.write(task, helpers) if task.sample.captions else ""
    draft = human or drop_unseen(task, (), helpers.writer.describe(task.look(), seed=task.seed), helpers.checker)
    if not draft:
        raise CaptionRejected("nothing that was described can be seen")
    for number in range(helpers.limits.rounds):
        seed = task.seed + _ROUND_SEED * number
        description = close_up(task, helpers, seed) if number == 0 else ""
        description = description or helpers.writer.describe(task.look(), seed=seed)
        revised = drop_unseen(task, [draft], helpers.writer.expand(draft, description, seed=seed), helpers.checker)
        captioning.check_details_kept([draft], revised, helpers.limits)
        if not captioning.new_clauses([draft], revised):
            break
        draft = revised
        task.notes["rounds that added something"] += 1
    if human:
        captioning.check_no_conflict(human, draft)
    return draft
