"""Pass rates: keeps the samples that a model answers right in some attempts, for reinforcement learning.

A sample that is always or never answered right gives all its rollouts the same reward, and GRPO no advantage. KARL and
DeepPerception leave both out (arXiv 2503.12797, section 4.2: of four attempts, one to three right are kept).
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
    """Whether a completion is right: its box at IoU 0.5, every box of several, or `none` where nothing is there."""
    answer = completion.answer
    if not sample.boxes:
        return not answer.boxes and _NONE.fullmatch(answer.answer or "") is not None
    if answer.problem is not None:
        return False
    if sample.task == "ground_all":
        return len(answer.boxes) == len(sample.boxes) and _covers(list(sample.boxes), list(answer.boxes))
    return answer.box is not None and is_hit(max(iou(answer.box, box) for box in sample.boxes))


def _covers(true: list[Box], predicted: list[Box]) -> bool:
    """Whether boxes match one to one at IoU 0.5. There are only a few, so all assignments are tried."""
    if not true:
        return True
    return any(
        is_hit(iou(true[0], box)) and _covers(true[1:], predicted[:index] + predicted[index + 1 :])
        for index, box in enumerate(predicted)
    )


def check_bounds(attempts: int, least: int, most: int) -> None:
    """Refuse bounds out of range."""
    if not 0 <= least <= most <= attempts:
        raise FieldmarkError(
            f"--least {least}, --most {most}: 0 <= least <= most <= attempts ({attempts}) must hold; the papers keep "
            f"1 to {attempts - 1}"
        )


def graded(sample: Sample, passes: int, attempts: int, info: dict[str, Any]) -> Sample:
    """Return the sample with its pass rate; `info` names the model and the settings."""
    rate = round(passes / attempts, 4)
    difficulty = {"passes": passes, "attempts": attempts, "rate": rate, **info}
    return replace(sample, provenance={**sample.provenance, "difficulty": difficulty})
