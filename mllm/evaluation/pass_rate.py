"""What a model gets right sometimes: the samples worth another look in reinforcement learning.

A sample answered right every time, or never, gives all its rollouts the same reward and GRPO nothing to prefer; KARL
and DeepPerception leave both out (arXiv 2503.12797, section 4.2: four attempts, one to three right are kept).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from mllm.boxes import Box, iou
from mllm.errors import FieldmarkError
from mllm.records import Completion, Sample
from mllm.rewards.iou import is_hit

_NONE = re.compile(r"\W*none\W*", re.IGNORECASE)


def is_right(sample: Sample, completion: Completion) -> bool:
    """Whether a completion answers its sample: the box at IoU 0.5; every box of several; `none` where there is none."""
    answer = completion.answer
    if not sample.boxes:
        return not answer.boxes and _NONE.fullmatch(answer.answer or "") is not None
    if answer.problem is not None:
        return False
    if sample.task == "ground_all":
        return len(answer.boxes) == len(sample.boxes) and _covers(list(sample.boxes), list(answer.boxes))
    return answer.box is not None and is_hit(max(iou(answer.box, box) for box in sample.boxes))


def _covers(true: list[Box], said: list[Box]) -> bool:
    """Whether boxes match one to one at IoU 0.5 (there are a handful, so all ways are tried)."""
    if not true:
        return True
    return any(
        is_hit(iou(true[0], box)) and _covers(true[1:], said[:index] + said[index + 1 :])
        for index, box in enumerate(said)
    )


def check_bounds(attempts: int, least: int, most: int) -> None:
    """Refuse bounds that keep nothing, or everything."""
    if not 0 <= least <= most <= attempts:
        raise FieldmarkError(
            f"--least {least}, --most {most}: 0 <= least <= most <= attempts ({attempts}) is needed; the papers keep "
            f"1 to {attempts - 1}"
        )


def graded(sample: Sample, passes: int, attempts: int, told: dict[str, Any]) -> Sample:
    """Return the sample with how often it was answered right; `told` says by whom and how."""
    rate = round(passes / attempts, 4)
    difficulty = {"passes": passes, "attempts": attempts, "rate": rate, **told}
    return replace(sample, provenance={**sample.provenance, "difficulty": difficulty})
