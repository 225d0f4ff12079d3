"""BlendCap (No Detail Left Behind, 2024): what several people noticed, in one caption. Nothing lost, nothing added.

People who caption the same image notice different things. The writer merges their captions; what comes out is
refused if it lost a detail of theirs or holds one that none of them wrote. Where they disagree on a colour or number
one side is enough; whether two colours are a disagreement or two things is for the writer to tell.
"""

from __future__ import annotations

from mllm.metrics import claims
from mllm.synthesis.capabilities import Edits
from mllm.synthesis.captioning import Aid, Image, Refused, keep_what_was_said

NEEDS = (Edits,)
MOST_ADDED = 0.1
"""Share of a blend's details that nobody wrote: room for a word of grammar or a synonym, not for a fact."""


def boost(image: Image, aid: Aid) -> str:
    """Merge all captions of an image."""
    caption = aid.writer.blend(image.given, seed=image.seed)
    keep_what_was_said(image.given, caption, aid.limits)
    if len(claims.added(image.given, caption)) > MOST_ADDED * len(claims.details(caption)):
        raise Refused("added details")
    return caption
