"""ImageInWords (Garg et al. 2024, arXiv 2405.02793), with a model in the annotators' seats: describe and revise.

The draft is what people wrote, blended, or else a description. Its things are described one by one and worked in; then
the image is described again, from another seed each round, and what that adds is worked in, until a round adds
nothing or `--rounds` are over. After every round the checker looks at what is new, and what it does not see is dropped:
a loop that only ever adds would end in invention. People's words stay and win where the two disagree.
"""

from __future__ import annotations

from mllm.synthesis.capabilities import Edits, Sees
from mllm.synthesis.captioning import (
    Aid,
    Image,
    Refused,
    blend,
    contradict_nobody,
    keep_what_was_said,
    news,
    only_seen,
)
from mllm.synthesis.captioning.textualize import close_up

NEEDS = (Edits, Sees)
CHECKED = True
_APART = 1009
"""Seeds of two rounds lie so far apart that no other attempt at the caption uses them."""


def boost(image: Image, aid: Aid) -> str:
    """Draft, then revise round after round."""
    people = blend.boost(image, aid) if image.sample.captions else ""
    draft = people or only_seen(image, (), aid.writer.describe(image.look(), seed=image.seed), aid.checker)
    if not draft:
        raise Refused("nothing that was described can be seen")
    for number in range(aid.limits.rounds):
        seed = image.seed + _APART * number
        told = close_up(image, aid, seed) if number == 0 else ""
        told = told or aid.writer.describe(image.look(), seed=seed)
        revised = only_seen(image, [draft], aid.writer.expand(draft, told, seed=seed), aid.checker)
        keep_what_was_said([draft], revised, aid.limits)
        if not news([draft], revised):
            break
        draft = revised
        image.notes["rounds that added something"] += 1
    if people:
        contradict_nobody(people, draft)
    return draft
