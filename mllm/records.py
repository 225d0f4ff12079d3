"""Records, the rows that flow through Fieldmark, and the jsonl files that hold them.

Every record is a frozen dataclass with a `SCHEMA` (name/version) that is written into each row. Reading streams and is
strict: an unknown schema, an unknown or missing field or a value of the wrong kind raises `RecordError`, whose message
starts with `file:line` and names the field. Writing is atomic: whoever looks sees the old file or the new one.

In a file a `Box` is `[x1, y1, x2, y2]` in the unit frame, a `Frame` is `[width, height]`, a `Thing` is an object.
The coding of single rows is in `mllm.io.codec`, which knows dataclasses and no files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from mllm.boxes import Box, Frame
from mllm.errors import RecordError
from mllm.io.codec import decode, encode
from mllm.io.files import atomic_write

SPLITS = ("train", "validation", "test")
REFERENCE = re.compile(r"<obj:(\d{1,4})>")
"""How a family-neutral thought refers to a box: `<obj:K>` is `sample.things[K]`."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One labelled photo from a source: what is on it and where. `size` is in pixels, after EXIF orientation."""

    SCHEMA: ClassVar[str] = "fieldmark.photo/1"

    id: str
    image: str
    size: Frame
    domain: str
    entity: str
    boxes: tuple[Box, ...]
    captions: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    licence: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse a photo without a name, an image or a label."""
        _require_text(self, "id", "image", "domain", "entity")


@dataclass(frozen=True, slots=True)
class Thing:
    """One object in an image: its entity, its box, and the marks that can be seen on it."""

    entity: str
    box: Box
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one image, with its answer.

    `size` is the image's, in pixels after EXIF orientation. `boxes` answer the question; `things` are all known
    objects of the image, the target among them. `thought` is family-neutral reasoning that refers to boxes as
    `<obj:K>`, K an index into `things`. `seen` says whether the ENTITY was in the training set (None: not known).
    `group` is the image that cases share, the unit a bootstrap draws; empty means `image`. `bag` names its
    look-alikes.
    """

    SCHEMA: ClassVar[str] = "fieldmark.sample/1"

    id: str
    task: str
    image: str
    size: Frame
    domain: str
    entity: str
    question: str
    boxes: tuple[Box, ...]
    things: tuple[Thing, ...] = ()
    thought: str | None = None
    captions: tuple[str, ...] = ()
    bag: str | None = None
    split: str = "train"
    seen: bool | None = None
    group: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse a sample that no program could use: no name, unknown split, a reference to a thing it has not."""
        _require_text(self, "id", "task", "image")
        if self.split not in SPLITS:
            raise RecordError(f"field split: {self.split!r} is none of {', '.join(SPLITS)}")
        if not self.group:
            object.__setattr__(self, "group", self.image)
        for match in REFERENCE.finditer(self.thought or ""):
            if int(match[1]) >= len(self.things):
                raise RecordError(f"field thought: {match[0]} refers to no entry of things (it has {len(self.things)})")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was read from model text.

    `numbers` are the coordinates as they were written, unclipped, on the family's frame (official scorers judge
    those); `boxes` are the valid ones in the unit frame. `problem` is a short stable phrase saying why the text could
    not be read, None when it could. `absent`: the text says that what was asked for is not there (no box, no problem).
    """

    thought: str | None
    answer: str | None
    boxes: tuple[Box, ...]
    numbers: tuple[tuple[float, ...], ...]
    problem: str | None
    absent: bool = False

    @property
    def box(self) -> Box | None:
        """The one box that counts where one was asked for, None when the answer could not be read or names none."""
        return self.boxes[-1] if self.boxes and self.problem is None else None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote for one sample. `tokens` counts the completion; `truncated` says that it ran out of room."""

    SCHEMA: ClassVar[str] = "fieldmark.completion/1"

    sample_id: str
    text: str
    answer: Answer
    tokens: int | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward or a metric gave. `value` None means that it does not apply; `parts` are logged."""

    SCHEMA: ClassVar[str] = "fieldmark.score/1"

    value: float | None
    parts: Mapping[str, float] = field(default_factory=dict, hash=False)


R = TypeVar("R")


def read_jsonl(path: str | Path, cls: type[R], *, unique: str | None = None, torn_tail: bool = False) -> Iterator[R]:
    """Stream the rows of a record file.

    Args:
        path: a jsonl file whose rows carry `cls.SCHEMA`. Empty lines are passed over.
        cls: a record class (dataclass with a SCHEMA).
        unique: name of a field whose value may occur once only, e.g. "id".
        torn_tail: leave out a last line that was cut off in the middle (for logs written by `append_jsonl`).

    Raises:
        RecordError: no such file (at once); a bad row (when it is reached). Names file, line and field.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such record file")
    return (row for _, row in _numbered(path, cls, unique, torn_tail))


def _numbered(path: Path, cls: type[R], unique: str | None, torn_tail: bool = False) -> Iterator[tuple[int, R]]:
    """Do the reading of `read_jsonl`, giving each row with its line number."""
    seen: dict[Any, int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if torn_tail and not line.endswith(b"\n") and not _is_whole(line):
                return
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # some editors start a file with a byte-order mark
            if not line.strip():
                continue
            try:
                row = decode(line, cls)
            except RecordError as error:
                raise RecordError(f"{path}:{number}: {error}") from None
            if unique is not None:
                key = getattr(row, unique)
                if key in seen:
                    raise RecordError(f"{path}:{number}: field {unique}: {key!r} was used before, on line {seen[key]}")
                seen[key] = number
            yield number, row


def load_samples(path: str | Path, *, images: bool = True) -> list[Sample]:
    """Read a whole samples file and check what the rows cannot know of one another.

    Raises:
        RecordError: as `read_jsonl`; a duplicate id; no row at all; with `images`, an image that is not there.
    """
    path = Path(path)
    samples: list[Sample] = []
    if not path.is_file():
        raise RecordError(f"{path}: no such record file")
    for line, sample in _numbered(path, Sample, "id"):
        if images and not (picture := image_path(path, sample)).is_file():
            raise RecordError(
                f"{path}:{line}: field image: no such file {picture} (paths are relative to the samples file's folder)"
            )
        samples.append(sample)
    if not samples:
        raise RecordError(f"{path}: the file holds no sample; was the program that writes it stopped early?")
    return samples


def check_unique(rows: Iterable[R], key: str = "id") -> list[R]:
    """Return the rows as a list, or raise `RecordError` naming the first value of field `key` that occurs twice."""
    found: dict[Any, R] = {}
    for row in rows:
        value = getattr(row, key)
        if value in found:
            raise RecordError(f"field {key}: {value!r} occurs twice")
        found[value] = row
    return list(found.values())


def image_path(file: str | Path, sample: Sample | Photo) -> Path:
    """Return where the image of a row of `file` lies: `image` is relative to that file's folder, or absolute."""
    return Path(file).parent / sample.image


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write records to `path` and return how many. Until the last one is on the disk the old file stays."""
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            file.write(encode(row) + "\n")
            count += 1
    return count


def append_jsonl(path: str | Path, row: Any) -> None:
    """Append one record to a log that a stopped program goes on with. A torn last line is cut off first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (encode(row) + "\n").encode()
    repair_jsonl(path)
    with path.open("ab", buffering=0) as file:
        file.write(line)


def repair_jsonl(path: str | Path) -> int:
    """Cut a torn last line off a log and return how many bytes went. A whole one that only lacks its end gets it."""
    path = Path(path)
    if not path.exists() or path.stat().st_size == 0:
        return 0
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = size
        while start > 0:  # back to the last line's beginning, in blocks: a log may be large, its last line is not
            block = max(start - 65536, 0)
            file.seek(block)
            newline = file.read(start - block).rfind(b"\n")
            if newline >= 0:
                start = block + newline + 1
                break
            start = block
        if start == size:
            return 0
        file.seek(start)
        if _is_whole(file.read()):
            file.write(b"\n")
            return 0
        file.truncate(start)
        return size - start


def _is_whole(line: bytes) -> bool:
    """Whether a line is a whole JSON object (a row cut off in the middle is none, wherever the cut fell)."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _require_text(record: Any, *names: str) -> None:
    """Refuse an empty string in one of the named fields."""
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, str) or not value:
            raise RecordError(f"field {name}: a text that is not empty is needed, got {value!r}")
