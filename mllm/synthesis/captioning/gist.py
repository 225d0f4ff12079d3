"""GIST (Lewis et al. 2023, arXiv 2307.11315): describe an image by those marks of its class that it shows.

The encoder compares the image with every mark of its class (from `--knowledge`, otherwise from the writer); those of
the caption are drawn from the softmax at the encoder's own scale. A checker drops marks it does not see.
"""

import random
from math import log

from mllm.captions import with_article
from mllm.errors import FieldmarkError
from mllm.models.similarity import softmax_scale
from mllm.prompting import prose
from mllm.synthesis.capabilities import Knows
from mllm.synthesis.captioning import CaptionRejected, CaptionTask, Helpers, not_seen

NEEDS = ()


def write(task: CaptionTask, helpers: Helpers) -> str:
    """Choose the marks of the image's class that match it best."""
    if not (entity := task.sample.entity):
        raise CaptionRejected("its class is not given")
    if not (marks := _class_marks(entity, task.sample.domain, helpers)):
        raise CaptionRejected("no marks are known of its class")
    # In wording that encoders know: `a red wren`, `a wren with a red cap`.
    phrases = [with_article(f"{entity} with {mark}" if " " in mark else f"{mark} {entity}") for mark in marks]
    fit = helpers.encoder.similarity(phrases, [task.image])[:, 0]
    scale, rng = softmax_scale(helpers.encoder), random.Random(f"gist/{task.seed}/{task.sample.id}")
    # Gumbel noise on the logits, then the largest: a draw without replacement (Vieira 2014; Kool et al. 2019).
    noisy = [scale * float(one) - log(-log(rng.random() or 0.5)) for one in fit]
    ranked = sorted(range(len(marks)), key=lambda index: -noisy[index])
    chosen = [marks[index] for index in sorted(ranked[: helpers.limits.marks], key=lambda index: -fit[index])]
    false = not_seen(task.look(), chosen, helpers.checker)
    task.notes["marks dropped, not seen"] += len(false)
    if not (left := [mark for mark in chosen if mark not in false]):
        raise CaptionRejected("no mark of its class was seen")
    return prose.captioned(entity, left)


def _class_marks(entity: str, domain: str, helpers: Helpers) -> tuple[str, ...]:
    if helpers.cards:
        return tuple(helpers.cards[entity])
    if not isinstance(helpers.writer, Knows):
        advice = "give knowledge cards with --knowledge, or a teacher that knows them"
        raise FieldmarkError(f"strategy 'gist' needs marks: {advice}")
    return helpers.writer.marks(entity, domain)
