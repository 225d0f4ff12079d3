"""GIST (Lewis et al. 2023, arXiv 2307.11315): of all that is known of a class, what this image shows of it.

A class has more marks than one image shows: male and female, from the front and from the side. The scorer compares
the image with every mark of ITS OWN class, so that the class is kept whatever it sees, and the best fitting make the
caption, as `class: mark, mark`. They are drawn without replacement by the softmax of the scorer's own scale: other
seeds give other captions where several marks fit about as well. A checker, where there is one, drops what it does not
see. Marks come from knowledge cards (`--knowledge`), else from a writer that knows.
"""

from __future__ import annotations

import random
from math import log

from mllm.captions import with_article
from mllm.errors import FieldmarkError
from mllm.models.similarity import softmax_scale
from mllm.prompting.questions import listed
from mllm.synthesis.capabilities import Knows
from mllm.synthesis.captioning import Aid, Image, Refused, unseen

NEEDS = ()


def boost(picture: Image, aid: Aid) -> str:
    """Choose the marks of the image's class that fit it best."""
    entity = picture.sample.entity
    if not entity:
        raise Refused("its class is not told")
    marks = _known(entity, picture.sample.domain, aid)
    if not marks:
        raise Refused("nothing is known of its class")
    fit = aid.encoder.similarity([_told(entity, mark) for mark in marks], [picture.image])[:, 0]
    scale, rng = softmax_scale(aid.encoder), random.Random(f"gist/{picture.seed}/{picture.sample.id}")
    # Gumbel noise on logits, then the largest: a draw without replacement (Vieira 2014; Kool et al. 2019).
    noisy = [scale * float(one) - log(-log(rng.random() or 0.5)) for one in fit]
    ranked = sorted(range(len(marks)), key=lambda place: -noisy[place])
    chosen = [marks[place] for place in sorted(ranked[: aid.limits.marks], key=lambda place: -fit[place])]
    false = unseen(picture.look(), chosen, aid.checker)
    picture.notes["marks dropped, not seen"] += len(false)
    left = [mark for mark in chosen if mark not in false]
    if not left:
        raise Refused("no mark of its class was seen")
    return f"{entity[0].upper()}{entity[1:]}: {listed(left)}."


def _known(entity: str, domain: str, aid: Aid) -> tuple[str, ...]:
    """The marks of a class: from its card, else from a writer that knows."""
    if aid.cards:
        return tuple(aid.cards[entity])
    if not isinstance(aid.writer, Knows):
        raise FieldmarkError(
            "strategy 'gist' needs marks: give knowledge cards with --knowledge, or a teacher that knows"
        )
    return aid.writer.marks(entity, domain)


def _told(entity: str, mark: str) -> str:
    """A mark of a class as a scorer has read such things: `a red wren`, `a wren with a red cap`."""
    words = f"{entity} with {mark}" if " " in mark else f"{mark} {entity}"
    return with_article(words)
