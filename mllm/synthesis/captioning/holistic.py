"""HolisticCap (No Detail Left Behind, 2024): the blend of people's captions, expanded by what a model sees.

The people are trusted, the model is not: where the two disagree the blend wins, and every clause that brings something
new is shown to the checker. What it does not see, or cannot tell, is a reason to refuse.
"""

from __future__ import annotations

from mllm.synthesis.capabilities import Edits, Sees
from mllm.synthesis.captioning import Aid, Image, Refused, blend, contradict_nobody, keep_what_was_said, news, unseen

NEEDS = (Edits, Sees)


def boost(image: Image, aid: Aid) -> str:
    """Blend, have the image described, expand, look."""
    trusted = blend.boost(image, aid)
    description = aid.writer.describe(image.look(), seed=image.seed)
    caption = aid.writer.expand(trusted, description, seed=image.seed)
    keep_what_was_said([trusted], caption, aid.limits)
    contradict_nobody(trusted, caption)
    new = news([trusted], caption)
    if unseen(image.look(), new, aid.checker):
        raise Refused("added details that cannot be seen")
    image.notes["clauses with new details"] += len(new)
    return caption
