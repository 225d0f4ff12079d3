"""Grounding data made as a user makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_synth import grounding


def make(out: Path, *flags: str) -> dict[str, Any]:
    """Run `data_synth/grounding.py` and return its manifest."""
    grounding.main([*flags, "--out", str(out)])
    return json.loads((out / "manifest.json").read_text())
