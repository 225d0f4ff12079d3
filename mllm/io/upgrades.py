"""Rows of older schemas, upgraded while they are read: one function per schema, from the old row to the new one."""

from collections.abc import Callable, Mapping
from typing import Any

Row = dict[str, Any]
Upgrades = Mapping[str, Callable[[Row], Row]]
"""Old schema name -> function that turns its row into one of the current schema."""


def photo_1(row: Row) -> Row:
    """`provenance` held what programs read of a photo; these are fields now."""
    notes = dict(row.get("provenance") or {})
    moved = _take(notes, "drawn", "genus", "use", "group", "fingerprint")
    if "side" in notes:
        moved["split"] = notes.pop("side")
    if "no box" in notes:
        moved["rejected"] = notes.pop("no box")
    notes.pop("seen", None)  # follows from `use`
    return {**row, **moved, "provenance": notes}


def photo_2(row: Row) -> Row:
    """A photo showed one entity; it holds things of several now, each with one box or none."""
    fields = {name: row[name] for name in ("entity", "domain", "marks", "genus", "use") if name in row}
    boxes = row.get("boxes")
    things = [{**fields, "box": box} for box in boxes or [None]] if isinstance(boxes, list) else boxes
    return {**{name: value for name, value in row.items() if name not in (*fields, "boxes")}, "things": things}


def sample_1(row: Row) -> Row:
    """`provenance` held what programs read of a sample; these are fields now."""
    notes = dict(row.get("provenance") or {})
    names = ("kind", "stratum", "asked", "options", "layout")
    moved = _take(notes, *names, "drawn", "licence", "fingerprint", "refused", "categories")
    if "given" in notes:
        moved["human_captions"] = notes.pop("given")
    if notes.get("source") == "pocket":
        moved["drawn"] = True
    notes.pop("side", None)  # the same as `split`
    return {**row, **moved, "provenance": notes}


def completion_1(row: Row) -> Row:
    """`clipped` is called `truncated` now."""
    return {("truncated" if name == "clipped" else name): value for name, value in row.items()}


def _take(notes: Row, *names: str) -> Row:
    return {name: value for name in names if (value := notes.pop(name, None)) is not None}
