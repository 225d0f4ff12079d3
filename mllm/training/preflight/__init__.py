"""Proves a recipe without a GPU and without weights: `fieldmark preflight`.

`proof.py` is the story; each other file is one thing that is looked at. What a run itself refuses before it reads a
weight (rows, images, settings) is checked by the run's own code, `mllm.training.dataset`, never a second time here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "not checked", "bad"]


@dataclass(frozen=True)
class Finding:
    """What one look said. `not checked` tells in its last line how to supply what was missing."""

    topic: str
    state: State
    lines: tuple[str, ...]
