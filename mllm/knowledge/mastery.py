"""How well a model knows each entity: shares of right answers, KARL's five levels, and the file that stores them.

A mastery file is json, ours (`eval/mastery.py` makes it) or the one that KARL publishes (arXiv 2503.12797v3, app. B.2):

    {"schema": "fieldmark.mastery/1", "entities": {"Boeing 747-400": {"right": 7, "asked": 8}}, "made": {...}}
    {"Boeing 747-400": {"knowledge_category": "completely correct"}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, FiniteFloat

from mllm.errors import RecordError
from mllm.io import strict_json
from mllm.io.files import atomic_write
from mllm.knowledge.cards import ByName, one_spelling

SCHEMA = "fieldmark.mastery/1"
Level = Literal["completely correct", "mostly correct", "partially correct", "mostly incorrect", "completely incorrect"]
LEVELS: tuple[Level, ...] = get_args(Level)
BOUNDS = (0.70, 0.45, 0.30, 0.10)
"""Share of right answers from which an entity is on each level but the last."""
HIGH = LEVELS[:3]
"""The levels that KVG-Bench's scorer counts as high knowledge; the other two are low."""


@dataclass(frozen=True, slots=True)
class Entry:
    """How well one entity is known: its level, and the counts behind it where there are any."""

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


class MasteryTable(ByName[Entry]):
    """Mastery by entity; names are compared as card names are."""

    what = "level"
    error = RecordError

    def __init__(self, entries: Mapping[str, Entry], origin: str = "the mastery table") -> None:
        super().__init__(entries, origin)

    @classmethod
    def counted(cls, answers: Iterable[tuple[str, float]], origin: str = "the mastery table") -> MasteryTable:
        """Build a table from (entity, right) pairs, one a question; `right` is 0..1 (between: a shared guess)."""
        sums: dict[str, tuple[float, int]] = {}
        for entity, right in answers:
            total, asked = sums.get(entity, (0.0, 0))
            sums[entity] = total + right, asked + 1
        return cls({name: Entry(level(total / n), total, n) for name, (total, n) in sorted(sums.items())}, origin)

    def level(self, name: str, unknown: str | None = None) -> str:
        """Return an entity's level. For one outside the table that is `unknown`; None raises an error."""
        if unknown is not None and name not in self:
            return unknown
        return self[name].level

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that the table does not hold, each once, sorted."""
        return sorted({name for name in names if name not in self})

    def check(self, names: Iterable[str], setting: str) -> None:
        """Raise `RecordError` if two names of the data would share one level, or if entities of the data are not in the
        table; `setting` could give them a level."""
        names = list(names)
        one_spelling(names, "the data", RecordError)
        if missing := self.missing(names):
            raise RecordError(
                f"{self.origin}: {len(missing)} entities of the data are not in it: {', '.join(missing[:5])}"
                f"{', ...' if len(missing) > 5 else ''}. Run eval/mastery.py on the same data, or set {setting} "
                "to a level"
            )

    def shares(self) -> dict[str, float]:
        """Return the share of entities on each level."""
        levels = [entry.level for entry in self.values()]
        return {name: levels.count(name) / len(levels) if levels else 0.0 for name in LEVELS}

    def save(self, path: str | Path, made: Mapping[str, Any] | None = None) -> Path:
        """Write the table; `made` says how it was made. A level without counts is written as KARL writes it."""
        rows = {
            name: {"right": entry.right, "asked": entry.asked, "level": entry.level}
            if entry.accuracy is not None
            else {"knowledge_category": entry.level}
            for name, entry in self.items()
        }
        with atomic_write(path) as file:
            content = {"schema": SCHEMA, "entities": rows, "made": dict(made or {})}
            file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return Path(path)


def load_masteries(paths: Sequence[str | Path]) -> MasteryTable:
    """Read mastery files as one: KARL publishes three. Raises `RecordError`: an entity has two levels."""
    entries: dict[str, Entry] = {}
    for path in paths:
        for name, entry in load_mastery(path).items():
            if entries.setdefault(name, entry).level != entry.level:
                raise RecordError(
                    f"{path}: entity {name!r} is {entry.level} here, {entries[name].level} in a file before"
                )
    return MasteryTable(entries, ", ".join(map(str, paths)))


def load_mastery(path: str | Path) -> MasteryTable:
    """Read a mastery file, ours or KARL's. The result is cached until the file changes.

    Raises `RecordError`: no such file, broken JSON, or an entry of neither form; names file, entity and field.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such mastery file; make one with eval/mastery.py")
    return _read(path, path.stat().st_mtime_ns)


class _Counted(BaseModel):
    right: FiniteFloat = Field(ge=0)
    asked: int = Field(ge=1)


class _Category(BaseModel):
    knowledge_category: Level


class _OwnFile(BaseModel):
    schema_: Literal["fieldmark.mastery/1"] = Field(alias="schema")
    entities: dict[str, Any] = Field(min_length=1)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> MasteryTable:
    """Read a file; `changed`, its time stamp, is only part of the cache's key."""
    rows = strict_json.read(path, dict[str, Any], kind=RecordError)
    if "schema" in rows:
        rows = strict_json.parsed(rows, _OwnFile, f"{path}: ", kind=RecordError).entities
    if not rows:
        raise RecordError(f"{path}: the file holds no entity")
    return MasteryTable({name: _entry(row, f"{path}: entity {name!r}: ") for name, row in rows.items()}, str(path))


def _entry(row: Any, where: str) -> Entry:
    if isinstance(row, dict) and "knowledge_category" in row:
        return Entry(strict_json.parsed(row, _Category, where, kind=RecordError).knowledge_category)
    found = strict_json.parsed(row, _Counted, where, kind=RecordError)
    if found.right > found.asked:
        raise RecordError(f"{where}field right: must be from 0 to {found.asked}, got {found.right}")
    return Entry(level(found.right / found.asked), found.right, found.asked)
