"""The model card of the pocket base, written from what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.io.tables import markdown, percent

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Fieldmark pocket base

A `Qwen3VLForConditionalGeneration` of a few million parameters that has seen nothing but the pocket world: drawn
things of ten domains. It finds things by their visible marks, describes what it sees and states the marks of 300
species by heart. It was never shown a way from a species' name to a place in an image: that is what fine-tuning adds.

Made by

    {command}

(seed {seed}, {warmup_steps} warm-up steps of the vision tower, {steps} steps of lessons). Scores of these very
weights, as rounded to bfloat16, on held-out images: {count} scenes of three things, and all 300 species for every
wording.

{rows}

Picking one of three things at random would score 33.3 % by name. For learning and testing, nothing else.
"""


def write_card(
    folder: Path, command: str, settings: Mapping[str, Any], scores: Mapping[str, float], count: int
) -> None:
    """Write ``scores.json`` and ``README.md`` beside the weights."""
    record = {"command": command, "settings": dict(settings), "scenes_per_check": count, "scores": dict(scores)}
    (folder / "scores.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    rows = markdown([("check", "score, %"), *((name, percent(score)) for name, score in scores.items())])
    (folder / "README.md").write_text(
        _CARD.format(command=command, rows=rows, count=count, **settings), encoding="utf-8"
    )
