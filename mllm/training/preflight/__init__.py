"""`fieldmark preflight`: checks a recipe without a GPU and without weights.

`check.py` runs all checks in order; each other module is one of them. What a run itself refuses before it loads weights
(rows, images, settings) is checked here by the run's own code, `mllm.training.dataset`.
"""

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "not checked", "bad"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. If it was `not checked`, the last line says how to supply what was missing."""

    topic: str
    state: State
    lines: tuple[str, ...]
