"""Files of knowledge cards, json or yaml: read strictly (an error names file, card and field), written for people.

A card has one of these shapes; a file may mix them, and every field but `marks` may be left out:

    Boeing 747-400: [upturned winglets, a hump behind the cockpit]
    Boeing 747-300:
      domain: aircraft
      source: who says so
      marks:
      - no winglets
      - mark: a long hump
        part: fuselage
        source: who says this one
        confidence: 0.9                 # 0..1
        verified: true                  # true, false, or unverified (nobody has looked)
        seen: 4 of 5                    # in so many of the images looked at
      unlike:                           # what it is easily taken for, and the marks that tell: [its own, the other's]
        Boeing 747-400:
        - [no winglets, upturned winglets]

A mark with `verified: false` stays in the file, for a person to overrule, and is used nowhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mllm.errors import FieldmarkError, RecordError
from mllm.io import strict_json
from mllm.io.files import atomic_write

UNVERIFIED = "unverified"
_ONE_LINE: dict[str, Any] = {"default_flow_style": None, "width": 10_000}
"""Of yaml: what holds no other lists or objects stands on one line, so that a change is a line of a diff."""
_SUFFIXES = (".json", ".yaml", ".yml")
_CARD = ("marks", "source", "domain", "unlike")
_MARK = ("mark", "part", "source", "confidence", "verified", "seen")


class KnowledgeError(FieldmarkError):
    """A card file that cannot be read, or an entity that has no card. Names the file, the entity and the nearest."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One field mark. `verified` None: no one has looked; `seen` of `looked` images showed it."""

    text: str
    part: str = ""
    source: str = ""
    confidence: float | None = None
    verified: bool | None = None
    seen: int = 0
    looked: int = 0

    def __post_init__(self) -> None:
        """Refuse a mark that says nothing, and numbers without meaning."""
        if not self.text.strip():
            raise RecordError("field mark: a text that is not empty is needed")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise RecordError(f"field confidence: a number from 0 to 1 is needed, got {self.confidence!r}")
        if not 0 <= self.seen <= self.looked:
            raise RecordError(f"field seen: from 0 to the {self.looked} images looked at is needed, got {self.seen}")


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of one entity. `unlike` maps what it is easily taken for to pairs (own mark, the other's)."""

    SCHEMA: ClassVar[str] = "fieldmark.card/1"

    entity: str
    domain: str = ""
    marks: tuple[Mark, ...] = ()
    source: str = ""
    unlike: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict, hash=False)

    @property
    def used(self) -> tuple[str, ...]:
        """The marks that may be used: all that were not looked for in vain, each once."""
        texts = (mark.text.strip().rstrip(".") for mark in self.marks if mark.verified is not False)
        return tuple(dict.fromkeys(texts))


def files_of(named: Iterable[str | Path]) -> tuple[str, ...]:
    """Return the named files, with each folder replaced by the files of cards in it, in the order of their names.

    Raises:
        KnowledgeError: a folder without such files.
    """
    files: list[str] = []
    for path in map(Path, named):
        if not path.is_dir():
            files.append(str(path))
            continue
        inside = sorted(str(file) for file in path.iterdir() if file.suffix in _SUFFIXES)
        if not inside:
            raise KnowledgeError(f"{path}: no knowledge cards in this folder ({', '.join(_SUFFIXES)})")
        files += inside
    return tuple(files)


def read(file: str | Path) -> dict[str, Card]:
    """Read one file of cards, by entity as it is written there.

    Raises:
        KnowledgeError: no such file, broken syntax (names the line), or a bad card (names card and field).
    """
    file = Path(file)
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
    cards = {str(name).strip(): card for name, card in content.items()}
    return {name: _card(f"{file}: card {name!r}", name, card) for name, card in cards.items()}


def write(file: str | Path, cards: Iterable[Card], heading: str = "") -> None:
    """Write cards as yaml, sorted by entity, one line a mark, whole or not at all; `heading` becomes a comment."""
    import yaml

    with atomic_write(file) as out:
        out.writelines(f"# {line}\n" if line else "#\n" for line in heading.splitlines())
        for card in sorted(cards, key=lambda card: card.entity):
            out.write(yaml.safe_dump({card.entity: _plain(card)}, allow_unicode=True, sort_keys=False, **_ONE_LINE))


def _plain(card: Card) -> dict[str, Any]:
    """Turn a card into what yaml writes: fields without a value are left out."""
    marks = []
    for mark in card.marks:
        told: dict[str, Any] = {"mark": mark.text, "part": mark.part, "source": mark.source}
        told = {key: value for key, value in told.items() if value}
        if mark.confidence is not None:
            told["confidence"] = mark.confidence
        told["verified"] = UNVERIFIED if mark.verified is None else mark.verified
        marks.append(told | ({"seen": f"{mark.seen} of {mark.looked}"} if mark.looked else {}))
    plain = {"domain": card.domain, "source": card.source, "marks": marks}
    unlike = {other: [list(pair) for pair in card.unlike[other]] for other in sorted(card.unlike)}
    return {key: value for key, value in (plain | {"unlike": unlike}).items() if value}


def _parse(file: Path, text: str) -> Any:
    """Read json or yaml by the file's ending; a syntax error names the line."""
    if file.suffix == ".json":
        try:
            return strict_json.loads(text) if text.strip() else None
        except json.JSONDecodeError as error:
            raise KnowledgeError(f"{file}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}") from None
    if file.suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise KnowledgeError(f"{file}:{line}: broken YAML: {error.problem}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # odd characters, impossible dates, deep nesting
            raise KnowledgeError(f"{file}: broken YAML: {str(error).splitlines()[0] or type(error).__name__}") from None
    raise KnowledgeError(f"{file}: cards are .json or .yaml files, not {file.suffix or 'without ending'}")


def _card(where: str, name: str, card: Any) -> Card:
    """Check one card. `where` (file and card) begins every error message."""
    fields = card if isinstance(card, dict) else {"marks": card}
    _known(where, fields, _CARD)
    marks = fields.get("marks")
    if not isinstance(marks, list) or not marks:
        raise KnowledgeError(f"{where}: a list of marks is needed, got {marks!r}")
    domain, source = (_text(where, fields, key) for key in ("domain", "source"))
    return Card(name, domain, tuple(_mark(where, mark) for mark in marks), source, _unlike(where, fields.get("unlike")))


def _mark(where: str, mark: Any) -> Mark:
    """Check one mark: a text, or an object with the text under `mark`."""
    if isinstance(mark, str) and mark.strip():
        return Mark(mark.strip())
    if not isinstance(mark, dict):
        raise KnowledgeError(f"{where}: a mark must be a text, got {mark!r}")
    _known(where, mark, _MARK, "marks.")
    text = mark.get("mark")
    if not isinstance(text, str) or not text.strip():
        raise KnowledgeError(f"{where}: field marks.mark: a mark must be a text, got {text!r}")
    at = f"{where}, mark {text!r}"
    part, source = (_text(at, mark, key) for key in ("part", "source"))
    confidence, verified, seen = mark.get("confidence"), mark.get("verified"), mark.get("seen", "0 of 0")
    if confidence is not None and type(confidence) not in (int, float):
        raise KnowledgeError(f"{at}: field confidence: a number from 0 to 1 is needed, got {confidence!r}")
    if verified not in (None, UNVERIFIED) and not isinstance(verified, bool):
        raise KnowledgeError(f"{at}: field verified: true, false or {UNVERIFIED} is needed, got {verified!r}")
    counts = re.fullmatch(r"(\d+) of (\d+)", str(seen))
    if not counts:
        raise KnowledgeError(f"{at}: field seen: it is written like `4 of 5`, got {seen!r}")
    checked = None if verified == UNVERIFIED else verified
    try:
        return Mark(text.strip(), part, source, confidence, checked, int(counts[1]), int(counts[2]))
    except RecordError as error:
        raise KnowledgeError(f"{at}: {error}") from None


def _unlike(where: str, unlike: Any) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Check the differences from other entities."""
    if unlike is None:
        return {}
    if not isinstance(unlike, dict):
        raise KnowledgeError(f"{where}: field unlike: {{other entity: [[own mark, its mark], ...]}} is needed")
    told = {}
    for other, pairs in unlike.items():
        for pair in pairs if isinstance(pairs, list) else [pairs]:
            whole = isinstance(pair, list) and len(pair) == 2 and all(isinstance(mark, str) for mark in pair)
            if not whole or not pair[0].strip():
                raise KnowledgeError(f"{where}: field unlike.{other}: [own mark, its mark] is needed, got {pair!r}")
        told[str(other)] = tuple(tuple(mark.strip() for mark in pair) for pair in pairs)
    return told


def _text(where: str, fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise KnowledgeError(f"{where}: field {key}: a text is needed, got {value!r}")
    return value


def _known(where: str, fields: Mapping[str, Any], known: tuple[str, ...], at: str = "") -> None:
    if unknown := sorted(str(key) for key in fields if key not in known):
        raise KnowledgeError(f"{where}: unknown field {at + unknown[0]!r}; known: {', '.join(known)}")
