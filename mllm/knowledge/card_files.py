"""Files of knowledge cards, json, yaml or csv. Reading is strict: an error names file, card and field.

In json and yaml a card has one of these shapes; a file may mix them, and every field except `marks` is optional:

    Boeing 747-400: [upturned winglets, a hump behind the cockpit]
    Boeing 747-300:
      domain: aircraft
      source: where this is written
      marks:
      - no winglets
      - mark: a long hump
        part: fuselage
        source: where this mark is written
        confidence: 0.9                 # 0..1
        verified: true                  # true, false, or unverified (not checked yet)
        seen: 4 of 5                    # images that show it, of the images examined
      unlike:                           # entities it is easily confused with: [own mark, the other's mark]
        Boeing 747-400:
        - [no winglets, upturned winglets]

A mark with `verified: false` stays in the file, where it can be corrected, and is not used.

A csv table has the columns entity,mark[,part,source,confidence,domain] and one mark a row; a row without a mark is
passed over if another row has a mark of the same entity.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from mllm.errors import FieldmarkError, RecordError
from mllm.io import strict_json, strict_yaml, words
from mllm.io.codec import Flag, Int, Number, Record
from mllm.io.csv_tables import checked_rows
from mllm.io.files import atomic_write, no_such, read_text
from mllm.knowledge.names import normalize_name

UNVERIFIED = "unverified"
_ONE_LINE: dict[str, Any] = {"default_flow_style": None, "width": 10_000}
"""Of yaml: lists and objects without nested ones take one line each, so that a change is one line of a diff."""
_SUFFIXES = (".json", ".yaml", ".yml")
"""Of the files that are read in a folder; a csv table is read where it is named: others may lie beside the cards."""
_COLUMNS = ("part", "source", "confidence", "domain")
_ROWS = 4
"""Rows for each entity in a table to fill in."""
_TO_FILL_IN = """Entities of which nothing is known yet. Write marks of each: `marks: [grey head, white throat]`.
Write down what can be seen in a photo; four to eight marks of each are enough."""


class KnowledgeError(FieldmarkError):
    """A card file that cannot be read, or an entity without a card. Names the file and the entity."""


@dataclass(frozen=True, slots=True)
class Mark(Record):
    """One field mark. `verified` None: not checked yet; `seen` of `looked` images show it."""

    text: str
    part: str = ""
    source: str = ""
    confidence: Number | None = None
    verified: Flag | None = None
    seen: Int = 0
    looked: Int = 0

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise RecordError("field mark: must not be empty")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise RecordError(f"field confidence: must be from 0 to 1, got {self.confidence!r}")
        if not 0 <= self.seen <= self.looked:
            raise RecordError(f"field seen: must be from 0 to the {self.looked} images examined, got {self.seen}")


@dataclass(frozen=True, slots=True)
class Card(Record):
    """What is known about one entity. `unlike` maps entities it is confused with to pairs (own mark, other's mark)."""

    SCHEMA: ClassVar[str] = "fieldmark.card/1"

    entity: str
    domain: str = ""
    marks: tuple[Mark, ...] = ()
    source: str = ""
    unlike: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict, hash=False)

    @property
    def used(self) -> tuple[str, ...]:
        """The marks that may be used: all that were not found false, each once."""
        texts = (mark.text.strip().rstrip(".") for mark in self.marks if mark.verified is not False)
        return tuple(dict.fromkeys(texts))


Text = Annotated[str, StringConstraints(strip_whitespace=True)]
NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _MarkInFile(BaseModel):
    """A mark as files hold it; a plain text stands for an object with that `mark` alone."""

    model_config = ConfigDict(extra="forbid")

    mark: NonEmpty
    part: str = ""
    source: str = ""
    confidence: Number | None = None
    verified: Annotated[bool | None, BeforeValidator(lambda value: None if value == UNVERIFIED else value)] = None
    seen: str = Field("0 of 0", pattern=r"^\d+ of \d+$")


class _CardInFile(BaseModel):
    """A card as files hold it; a plain list stands for an object with these `marks` alone."""

    model_config = ConfigDict(extra="forbid")

    marks: list[Annotated[_MarkInFile, BeforeValidator(lambda m: m if isinstance(m, dict) else {"mark": m})]] = Field(
        min_length=1
    )
    source: str = ""
    domain: str = ""
    unlike: dict[Text, list[Annotated[list[Text], Field(min_length=2, max_length=2)]]] = {}


def files_of(named: Iterable[str | Path]) -> tuple[str, ...]:
    """Return the named files, with each folder replaced by the files of cards in it, in the order of their names.

    Raises `KnowledgeError`: a folder without such files.
    """
    files: list[str] = []
    for path in map(Path, named):
        inside = [str(path)]
        if path.is_dir():
            inside = sorted(str(file) for file in path.iterdir() if file.suffix in _SUFFIXES)
        if not inside:
            raise KnowledgeError(f"{path}: no knowledge cards in this folder ({', '.join(_SUFFIXES)})")
        files += inside
    return tuple(files)


def read(file: str | Path, *, skip_empty: bool = False) -> dict[str, Card]:
    """Read one file of cards; the keys are the entities as written there.

    `skip_empty` passes over entities with an empty list, of which published files have some.

    Raises `KnowledgeError`: no such file, broken syntax (names the line), or a bad card (names card and field).
    """
    file = Path(file)
    if not file.is_file():
        raise KnowledgeError(no_such(file, "file of knowledge cards"))
    if file.suffix == ".csv":
        return _table(file)
    text = read_text(file, KnowledgeError)
    content = _parse(file, text)
    if not content:
        raise KnowledgeError(f"{file}: the file holds no card")
    if not isinstance(content, dict):
        raise KnowledgeError(f"{file}: cards are written {{entity: [mark, ...]}}, got a {type(content).__name__}")
    cards = {str(name).strip(): card for name, card in content.items()}
    if skip_empty:
        cards = {name: card for name, card in cards.items() if isinstance(card, dict) or _has_marks(card)}
    lines = strict_yaml.key_lines(text) if file.suffix != ".json" else {}
    check_filled(file, {name: lines.get(name) for name, card in cards.items() if not _has_marks(card)})
    return {name: _card(f"{file}: card {name!r}", name, card) for name, card in cards.items()}


def write(file: str | Path, cards: Iterable[Card], heading: str = "") -> None:
    """Write cards atomically as yaml, sorted by entity, one line for each mark; `heading` becomes a comment."""
    import yaml

    with atomic_write(file) as out:
        out.writelines(f"# {line}\n" if line else "#\n" for line in heading.splitlines())
        for card in sorted(cards, key=lambda card: card.entity):
            out.write(yaml.safe_dump({card.entity: _plain(card)}, allow_unicode=True, sort_keys=False, **_ONE_LINE))


def write_template(file: Path, entities: Iterable[tuple[str, str]]) -> None:
    """Write a file in which marks of these entities (domain, name) are to be filled in: yaml or csv, by its ending.

    `read` refuses it, and names the entities, until each has a mark.
    """
    check_template(file)
    if file.suffix != ".csv":
        write(file, [Card(name, domain) for domain, name in entities], _TO_FILL_IN)
        return
    with atomic_write(file) as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(("entity", "domain", "mark"))
        table.writerows((name, domain, "") for domain, name in entities for _ in range(_ROWS))


def check_template(file: Path) -> None:
    """Refuse a template that exists, since marks may be in it, or has another ending than .yaml or .csv."""
    if file.suffix not in (".yaml", ".yml", ".csv"):
        raise KnowledgeError(f"{file}: a file to fill in ends in .yaml or .csv")
    if file.exists():
        raise KnowledgeError(f"{file}: this file exists, and marks may be in it; give it another name")


def check_filled(file: Path, unfilled: Mapping[str, int | None]) -> None:
    """Refuse a file in which entities have no mark, all at once; `unfilled` holds their lines (None in json)."""
    if unfilled:
        first = next(iter(unfilled.values()))
        named = ", ".join(f"{name!r} (line {line})" if line else repr(name) for name, line in unfilled.items())
        raise KnowledgeError(
            f"{file}{f':{first}' if first else ''}: field marks: no mark is written yet of {len(unfilled)} entities: "
            f"{named}; write at least one of each, or take the entity out"
        )


def _has_marks(card: Any) -> bool:
    """Whether a card as the file holds it has anything where its marks belong; its form is checked later."""
    marks = card.get("marks", ()) if isinstance(card, dict) else card
    return any(mark not in (None, "") for mark in marks) if isinstance(marks, list) else marks not in (None, "")


def _plain(card: Card) -> dict[str, Any]:
    """Turn a card into what yaml writes: fields without a value are left out."""
    marks = []
    for mark in card.marks:
        texts = {"mark": mark.text, "part": mark.part, "source": mark.source}
        row: dict[str, Any] = {key: value for key, value in texts.items() if value}
        if mark.confidence is not None:
            row["confidence"] = mark.confidence
        row["verified"] = UNVERIFIED if mark.verified is None else mark.verified
        marks.append(row | ({"seen": f"{mark.seen} of {mark.looked}"} if mark.looked else {}))
    unlike = {other: [list(pair) for pair in card.unlike[other]] for other in sorted(card.unlike)}
    fields = {"domain": card.domain, "source": card.source, "marks": marks, "unlike": unlike}
    return {key: value for key, value in fields.items() if value or key == "marks"}


def _parse(file: Path, text: str) -> Any:
    """Read json or yaml by the file's ending; a syntax error or a duplicate key names the line."""
    if file.suffix == ".json":
        try:
            return strict_json.loads(text) if text.strip() else None
        except json.JSONDecodeError as error:
            raise KnowledgeError(f"{file}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}") from None
    if file.suffix in (".yaml", ".yml"):
        return strict_yaml.loads(text, file, KnowledgeError)
    raise KnowledgeError(f"{file}: cards are .json, .yaml or .csv files, not {file.suffix or 'without an ending'}")


def _card(where: str, name: str, content: Any) -> Card:
    """Check one card. `where` (file and card) begins every error message."""
    fields = content if isinstance(content, dict) else {"marks": content}
    words.check(name, where, KnowledgeError)
    found = strict_json.parsed(fields, _CardInFile, f"{where}: ", kind=KnowledgeError)
    marks = []
    for one in found.marks:
        seen, looked = map(int, one.seen.split(" of "))
        for text in (one.mark, one.part):
            words.check(text, f"{where}: field marks", KnowledgeError)
        try:
            marks.append(Mark(one.mark, one.part, one.source, one.confidence, one.verified, seen, looked))
        except RecordError as error:
            raise KnowledgeError(f"{where}, mark {one.mark!r}: {error}") from None
    unlike = {other: tuple(map(tuple, pairs)) for other, pairs in found.unlike.items()}
    for other, pairs in unlike.items():
        for text in (other, *(text for pair in pairs for text in pair)):
            words.check(text, f"{where}: field unlike", KnowledgeError)
        if not all(own for own, _ in pairs):
            raise KnowledgeError(f"{where}: field unlike.{other}: the own mark must not be empty")
    return Card(name, found.domain, tuple(marks), found.source, unlike)


def _table(file: Path) -> dict[str, Card]:
    """Read a csv table; rows of one entity may be anywhere and spell it otherwise."""
    cards: dict[str, Card] = {}
    spelled: dict[str, str] = {}
    lines: dict[str, int] = {}
    for where, row in checked_rows(file, needed=("entity", "mark"), optional=_COLUMNS):
        for column, text in row.items():
            words.check(text, f"{where}: field {column}", KnowledgeError)
        name = spelled.setdefault(normalize_name(row["entity"]), row["entity"])
        card = cards.setdefault(name, Card(name, domain=row.get("domain", "")))
        lines.setdefault(name, int(where.rpartition(":")[2]))
        if row["mark"] or any(row.get(column) for column in ("part", "source", "confidence")):
            cards[name] = replace(card, marks=(*card.marks, _mark_of_row(where, row)))
    check_filled(file, {name: lines[name] for name, card in cards.items() if not card.marks})
    return cards


def _mark_of_row(where: str, row: Mapping[str, str]) -> Mark:
    confidence = row.get("confidence", "")
    try:
        number = float(confidence) if confidence else None
        return Mark(row["mark"], row.get("part", ""), row.get("source", ""), number)
    except (RecordError, ValueError) as error:
        problem = error if isinstance(error, RecordError) else f"field confidence: {confidence!r} is not a number"
        raise KnowledgeError(f"{where}: {problem}") from None
