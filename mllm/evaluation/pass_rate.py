"""What a model gets right sometimes: the samples worth another look in reinforcement learning.

A sample answered right every time, or never, gives all its rollouts the same reward and GRPO nothing to prefer; KARL
and DeepPerception leave both out (arXiv 2503.12797, section 4.2: four attempts, one to three right are kept).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mllm.errors import FieldmarkError
from mllm.prompting.tasks import task_of
from mllm.records import Completion, Sample


def is_right(sample: Sample, completion: Completion) -> bool:
    """Whether a completion answers its sample, as the benchmark counts it."""
    return task_of(sample).is_right(completion.answer, sample)


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
