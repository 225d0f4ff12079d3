"""HolisticCap (No Detail Left Behind, 2024): a blend of human captions, expanded by what a model sees.

The human captions are trusted, the model is not: where the two disagree the blend wins, and every clause with new
details is shown to the checker. The caption is rejected if the checker does not see one of them or cannot tell.
"""

from __future__ import annotations

from mllm.synthesis.capabilities import Edits, Sees
from mllm.synthesis.captioning import (
    CaptionRejected,
    CaptionTask,
    Helpers,
    blend,
    check_details_kept,
    check_no_conflict,
    new_clauses,
    not_seen,
)

NEEDS = (Edits, Sees)


def write(task: CaptionTask, helpers: Helpers) -> str:
    """Blend, describe the image, expand, check what is new."""
    trusted = blend.write(task, helpers)
    description = helpers.writer.describe(task.look(), seed=task.seed)
    caption = helpers.writer.expand(trusted, description, seed=task.seed)
    check_details_kept([trusted], caption, helpers.limits)
    check_no_conflict(trusted, caption)
    new = new_clauses([trusted], caption)
    if not_seen(task.look(), new, helpers.checker):
        raise CaptionRejected("added details that cannot be seen")
    task.notes["clauses with new details"] += len(new)
    return caption
