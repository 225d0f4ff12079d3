"""How well a model knows each entity: shares of right answers, KARL's five levels, and the file that holds them.

A mastery file is json, ours or the one that KARL publishes:

    {"schema": "fieldmark.mastery/1", "entities": {"Boeing 747-400": {"right": 7, "asked": 8}}, "made": {...}}
    {"Boeing 747-400": {"knowledge_category": "completely correct"}}

Levels and their bounds are KARL's (Ma et al. 2026, arXiv 2503.12797v3, appendix B.2). `eval/mastery.py` makes files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from mllm.errors import RecordError
from mllm.io import strict_json
from mllm.io.files import atomic_write
from mllm.knowledge.cards import normalize_name

SCHEMA = "fieldmark.mastery/1"
LEVELS = ("completely correct", "mostly correct", "partially correct", "mostly incorrect", "completely incorrect")
BOUNDS = (0.70, 0.45, 0.30, 0.10)
"""Share of right answers from which an entity is on each level but the last."""
HIGH = LEVELS[:3]
"""The levels that KVG-Bench's scorer counts as high knowledge; the other two are low."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one entity: its level, and the count behind it where there was one."""

    level: str
    right: float | None = None
    asked: int | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, 0..1; None where only the level is known."""
        return None if self.right is None or not self.asked else self.right / self.asked


def level(accuracy: float) -> str:
    """Return the level of a share of right answers, 0..1."""
    return next((name for name, bound in zip(LEVELS, BOUNDS, strict=False) if accuracy >= bound), LEVELS[-1])


class MasteryTable(Mapping[str, Entry]):
    """Mastery by entity; names are compared as card names are (case, accents and hyphens do not count)."""

    def __init__(self, entries: Mapping[str, Entry], origin: str = "the mastery table") -> None:
        """Take entries as given; `origin` (a file name) is told in errors."""
        self.origin = origin
        self._entries = dict(entries)
        self._keys = {normalize_name(name): name for name in entries}

    @classmethod
    def counted(cls, answers: Iterable[tuple[str, float]], origin: str = "the mastery table") -> MasteryTable:
        """Build a table from (entity, right) pairs, one a question; `right` is 0..1 (between: a shared guess)."""
        sums: dict[str, tuple[float, int]] = {}
        for entity, right in answers:
            total, asked = sums.get(entity, (0.0, 0))
            sums[entity] = total + right, asked + 1
        return cls({name: Entry(level(total / n), total, n) for name, (total, n) in sorted(sums.items())}, origin)

    def __getitem__(self, name: str) -> Entry:
        """Return what is known of an entity; `RecordError` names the file and the nearest entities."""
        key = normalize_name(name)
        if key not in self._keys:
            near = [self._keys[other] for other in get_close_matches(key, self._keys, n=3, cutoff=0.5)]
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise RecordError(f"{self.origin}: entity {name!r} is not among its {len(self)} entities{hint}")
        return self._entries[self._keys[key]]

    def __contains__(self, name: object) -> bool:
        """Whether an entity is known."""
        return isinstance(name, str) and normalize_name(name) in self._keys

    def __iter__(self) -> Iterator[str]:
        """Go over the names as they were written."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Count the entities."""
        return len(self._entries)

    def level(self, name: str, unknown: str | None = None) -> str:
        """Return an entity's level; that of an entity which is not in the table is `unknown`, an error where None."""
        if unknown is not None and name not in self:
            return unknown
        return self[name].level

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that the table does not know, each once, sorted."""
        return sorted({name for name in names if name not in self})

    def shares(self) -> dict[str, float]:
        """Return which share of the entities is on each level."""
        levels = [entry.level for entry in self._entries.values()]
        return {name: levels.count(name) / len(levels) if levels else 0.0 for name in LEVELS}

    def save(self, path: str | Path, made: Mapping[str, Any] | None = None) -> Path:
        """Write the table; `made` says how it was made. Every entity needs its count."""
        rows = {}
        for name, entry in self._entries.items():
            if entry.right is None or not entry.asked:
                raise RecordError(f"{self.origin}: entity {name!r} has a level and no count, so it cannot be written")
            rows[name] = {"right": entry.right, "asked": entry.asked, "level": entry.level}
        with atomic_write(path) as file:
            json.dump(
                {"schema": SCHEMA, "entities": rows, "made": dict(made or {})}, file, indent=1, ensure_ascii=False
            )
            file.write("\n")
        return Path(path)


def load_mastery(path: str | Path) -> MasteryTable:
    """Read a mastery file, ours or KARL's; a file read before is not read again while it is unchanged.

    Raises:
        RecordError: no such file, broken JSON, or an entry that is neither; names file, entity and field.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such mastery file; make one with eval/mastery.py")
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> MasteryTable:
    """Read a file; `changed` is its time stamp and only part of the cache's key."""
    try:
        data = strict_json.load(path)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}: broken JSON: {error.msg}") from None
    if not isinstance(data, dict):
        raise RecordError(f"{path}: an object of entities is needed, got {type(data).__name__}")
    ours = "schema" in data
    if ours and data["schema"] != SCHEMA:
        raise RecordError(f"{path}: field schema: {data['schema']!r} is not {SCHEMA!r}")
    rows = data.get("entities") if ours else data
    if not isinstance(rows, dict) or not rows:
        raise RecordError(f"{path}: field entities: an object with at least one entity is needed")
    return MasteryTable({name: _entry(row, f"{path}: entity {name!r}") for name, row in rows.items()}, str(path))


def _entry(row: Any, where: str) -> Entry:
    """Read one entity's row."""
    if not isinstance(row, dict):
        raise RecordError(f"{where}: an object is needed, got {row!r:.60}")
    if "knowledge_category" in row:
        if row["knowledge_category"] not in LEVELS:
            raise RecordError(
                f"{where}: field knowledge_category: {row['knowledge_category']!r} is none of {', '.join(LEVELS)}"
            )
        return Entry(row["knowledge_category"])
    right, asked = row.get("right"), row.get("asked")
    if type(asked) is not int or asked < 1:
        raise RecordError(f"{where}: field asked: a whole number above 0 is needed, got {asked!r}")
    if isinstance(right, bool) or not isinstance(right, int | float) or not 0 <= right <= asked:
        raise RecordError(f"{where}: field right: a number from 0 to {asked} is needed, got {right!r}")
    return Entry(level(right / asked), float(right), asked)
