"""HolisticCap (No Detail Left Behind, 2024): a blend of human captions, expanded by what a model sees.

Where the two disagree the blend wins; a caption is rejected if the checker does not see one of its new details.
"""

from mllm.synthesis import captioning
from mllm.synthesis.capabilities import Edits, Sees
from mllm.synthesis.captioning import CaptionRejected, CaptionTask, Helpers, blend

NEEDS = (Edits, Sees)


def write(task: CaptionTask, helpers: Helpers) -> str:
    """Blend, describe the image, expand, check what is new."""
    trusted = blend.write(task, helpers)
    description = helpers.writer.describe(task.look(), seed=task.seed)
    caption = helpers.writer.expand(trusted, description, seed=task.seed)
    captioning.check_details_kept([trusted], caption, helpers.limits)
    captioning.check_no_conflict(trusted, caption)
    new = captioning.new_clauses([trusted], caption)
    if captioning.not_seen(task.look(), new, helpers.checker):
        raise CaptionRejected("added details that cannot be seen")
    task.notes["clauses with new details"] += len(new)
    return caption
