"""Knowledge cards: for each entity, the marks by which it is known.

A card file is json or yaml, in one of two shapes, which may be mixed:

    Boeing 747-400: [upturned winglets, a hump behind the cockpit]
    Boeing 747-300:
      marks: [no winglets, a long hump]
      source: who says so

Names are compared without regard to case, underscores, hyphens, apostrophes and accents.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.files import atomic_write

_LITTLE = frozenset("a an and are at by can has have in is it its of on or that the to with often very".split())


class KnowledgeError(FieldmarkError):
    """A card file that cannot be read, or an entity that has no card. Names the file, the entity and the nearest."""


class Cards(Mapping[str, tuple[str, ...]]):
    """Cards by entity. `cards[name]` forgives spelling; an unknown name raises `KnowledgeError` with the nearest."""

    def __init__(self, cards: Mapping[str, Iterable[str]], origin: str = "the cards") -> None:
        """Take cards as given; `origin` (a file name) is told in errors."""
        self.origin = origin
        self._marks: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, str] = {}
        for name, marks in cards.items():
            key = same_name(name)
            if key in self._names:
                raise KnowledgeError(f"{origin}: {name!r} and {self._names[key]!r} are the same name; keep one card")
            self._names[key] = name
            self._marks[key] = tuple(dict.fromkeys(mark.strip().rstrip(".") for mark in marks))

    def __getitem__(self, name: str) -> tuple[str, ...]:
        """Return the marks of an entity."""
        key = same_name(name)
        if key not in self._marks:
            near = [self._names[other] for other in get_close_matches(key, self._names, n=3, cutoff=0.5)]
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise KnowledgeError(f"{self.origin}: no card for {name!r} (it has {len(self)} cards{hint}). Add one.")
        return self._marks[key]

    def __contains__(self, name: object) -> bool:
        """Whether an entity has a card."""
        return isinstance(name, str) and same_name(name) in self._marks

    def __iter__(self) -> Iterator[str]:
        """Go over the names as they were written."""
        return iter(self._names.values())

    def __len__(self) -> int:
        """Count the cards."""
        return len(self._names)


def same_name(name: str) -> str:
    """Reduce a name to what counts when names are compared: `British_Shorthair` and `british shorthair` are one."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).replace("'", "").replace("’", "")
    return re.sub(r"[\W_]+", " ", plain).strip()


def load(*files: str | Path) -> Cards:
    """Read card files into one set of cards. An entity may stand in one file only."""
    cards: dict[str, tuple[str, ...]] = {}
    for file in map(Path, files):
        found = _read(file)
        clash = {same_name(name): name for name in cards}
        for name, marks in found.items():
            if same_name(name) in clash:
                raise KnowledgeError(f"{file}: {name!r} has a card in an earlier file too; keep one")
            cards[name] = marks
    return Cards(cards, ", ".join(str(file) for file in files))


def save(file: str | Path, cards: Mapping[str, Iterable[str]]) -> None:
    """Write cards as json, in the order of their names, whole or not at all."""
    with atomic_write(file) as out:
        json.dump({name: list(cards[name]) for name in sorted(cards)}, out, ensure_ascii=False, indent=1)
        out.write("\n")


def likeness(a: Iterable[str], b: Iterable[str]) -> float:
    """How much two cards say alike, 0..1: shared words over all words (Jaccard), little words left out."""
    words_a, words_b = _words(a), _words(b)
    return len(words_a & words_b) / max(len(words_a | words_b), 1)


def _words(marks: Iterable[str]) -> frozenset[str]:
    return frozenset(word for mark in marks for word in same_name(mark).split()) - _LITTLE


def _read(file: Path) -> dict[str, tuple[str, ...]]:
    """Read one file of cards."""
    if not file.is_file():
        raise KnowledgeError(f"{file}: no such file of knowledge cards")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise KnowledgeError(f"{file}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None
    content = _parse(file, text)
    if not content:
        raise KnowledgeError(f"{file}: the file holds no card")
    if not isinstance(content, dict):
        raise KnowledgeError(f"{file}: cards are written {{entity: [mark, ...]}}, got a {type(content).__name__}")
    return {str(name): _marks(file, str(name), card) for name, card in content.items()}


def _parse(file: Path, text: str) -> Any:
    """Read json or yaml by the file's ending; a syntax error names the line."""
    if file.suffix == ".json":
        try:
            return json.loads(text) if text.strip() else None
        except json.JSONDecodeError as error:
            raise KnowledgeError(f"{file}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}") from None
    if file.suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise KnowledgeError(f"{file}:{line}: broken YAML: {error.problem}") from None
    raise KnowledgeError(f"{file}: cards are .json or .yaml files, not {file.suffix or 'without ending'}")


def _marks(file: Path, name: str, card: Any) -> tuple[str, ...]:
    """Check one card and return its marks."""
    if isinstance(card, dict):
        if unknown := sorted(card.keys() - {"marks", "source"}):
            raise KnowledgeError(f"{file}: card {name!r}: unknown field {unknown[0]!r}; known: marks, source")
        card = card.get("marks")
    if not isinstance(card, list) or not card:
        raise KnowledgeError(f"{file}: card {name!r}: a list of marks is needed, got {card!r}")
    for mark in card:
        if not isinstance(mark, str) or not mark.strip():
            raise KnowledgeError(f"{file}: card {name!r}: a mark must be a text, got {mark!r}")
    return tuple(card)
