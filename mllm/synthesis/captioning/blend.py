"""BlendCap (No Detail Left Behind, 2024): merge several people's captions into one, losing and adding nothing.

Where they disagree on a colour or number, one version is enough.
"""

from mllm.metrics import claims
from mllm.synthesis.capabilities import Edits
from mllm.synthesis.captioning import CaptionRejected, CaptionTask, Helpers, check_details_kept

NEEDS = (Edits,)
MOST_ADDED = 0.1
"""Maximum share of a blend's details that are in no human caption: enough for a synonym, too little for a fact."""


def write(task: CaptionTask, helpers: Helpers) -> str:
    """Merge all human captions of an image."""
    caption = helpers.writer.blend(task.given, seed=task.seed)
    check_details_kept(task.given, caption, helpers.limits)
    if len(claims.added(task.given, caption)) > MOST_ADDED * len(claims.details(caption)):
        raise CaptionRejected("added details")
    return caption
