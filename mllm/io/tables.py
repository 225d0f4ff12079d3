"""Tables and intervals as text: Markdown rows, shares in percent, and their confidence intervals."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

MISSING = "–"
"""What a cell shows where there is no value."""
_WIDEST = 40
"""Cells are padded to their column's width, but never beyond this many characters."""


def markdown(rows: Iterable[Iterable[Any]]) -> str:
    """Write rows of equal length, the head first, as an aligned Markdown table. Values other than text become JSON."""
    lines = [[_cell(value) for value in row] for row in rows]
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*lines, strict=True)]
    text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def percent(share: float | None, *, sign: bool = False) -> str:
    """Write a share (0..1) in percent with one decimal; `sign` adds a plus to positive differences."""
    return MISSING if share is None else f"{100 * share:{'+' if sign else ''}.1f}"


def interval(mean: Mapping[str, Any]) -> str:
    """Write the bounds `low` and `high` of a mean in percent, as `12.5 to 20.0`."""
    return MISSING if mean["low"] is None else f"{percent(mean['low'])} to {percent(mean['high'])}"


def percent_interval(mean: Mapping[str, Any] | None, *, sign: bool = False) -> str:
    """Write a mean (`value`, `low`, `high`) with its interval, as `15.0 (12.5 to 20.0)`."""
    if mean is None:
        return MISSING
    value = percent(mean["value"], sign=sign)
    return value if mean["low"] is None else f"{value} ({interval(mean)})"


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("|", "\\|").replace("\n", " ")
