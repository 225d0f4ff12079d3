"""Pass rates: keeps the samples that a model answers right in some attempts, for reinforcement learning.

A sample that is always or never answered right gives all its rollouts the same reward, and GRPO no advantage. KARL and
DeepPerception leave both out (arXiv 2503.12797, section 4.2: of four attempts, one to three right are kept).
"""

from dataclasses import replace
from typing import Any

from mllm.errors import FieldmarkError
from mllm.records import Sample


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
