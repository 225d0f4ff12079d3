"""Other tools' grounding data, read into our samples and written from them. One file, one format; its name is its name.

A file defines `read(path, family) -> Iterator[Sample]` and `write(path, samples, family, style) -> int`; its
docstring says where its boxes are written and whose convention that is. To add one, write the file; the tests of this
folder pick it up.

Numbers survive: what is read and written again has the numbers of the first file (of two that mean the same box, the
shorter), and formats that hold decimals give back the very same box. Errors name file, line and field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mllm.boxes import Box, Frame
from mllm.errors import BoxError, ImageError, RecordError
from mllm.io import strict_json
from mllm.io.files import atomic_write
from mllm.io.images import image_size
from mllm.models.families import Family
from mllm.records import Sample
from mllm.registry import Registry

UNKNOWN = "?"
"""Domain of imported samples, whose files do not tell it, and entity of things that have no name there."""
OBJECT = re.compile(r"<\|object_ref_start\|>(.+?)<\|object_ref_end\|>", re.DOTALL)
"""How the Qwen-VL lines mark the name of what is asked for."""


class Format(Protocol):
    """What a file of this folder gives."""

    def read(self, path: Path, family: Family) -> Iterator[Sample]:
        """Read samples; images become paths relative to the file's folder, or stay absolute."""
        ...

    def write(self, path: Path, samples: Sequence[Sample], family: Family, style: str) -> int:
        """Write samples and return how many."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a foreign file and where it stands."""

    path: Path
    number: int
    row: dict[str, Any]

    def error(self, field: str, problem: str) -> RecordError:
        """Return an error that names file, line and field."""
        return RecordError(f"{self.path}:{self.number}: field {field}: {problem}")

    def get(self, field: str, kind: type, *, default: Any = ...) -> Any:
        """Return a field of the given kind; missing is an error unless there is a default."""
        value = self.row.get(field, default)
        if value is ...:
            raise self.error(field, f"is missing; the row has {', '.join(self.row) or 'no field'}")
        if value is not default and not isinstance(value, kind):
            raise self.error(field, f"{kind.__name__} is needed, got {value!r:.60}")
        return value

    def box(self, field: str, numbers: Any, frame: Frame) -> Box:
        """Return the box that four numbers on `frame` are."""
        if not isinstance(numbers, list | tuple):
            raise self.error(field, f"a list of four numbers is needed, got {numbers!r:.60}")
        try:
            return Box.from_xyxy(numbers, frame)
        except BoxError as error:
            raise self.error(field, str(error)) from None

    def image(self, field: str, name: Any) -> tuple[str, Frame]:
        """Return an image's path as it stands and its size in pixels."""
        if not isinstance(name, str) or not name:
            raise self.error(field, f"the path of an image is needed, got {name!r:.60}")
        try:
            return name, image_size(self.path.parent / name)
        except ImageError as error:
            raise self.error(field, str(error)) from None


_FILES = Registry(__name__, "format")
names = _FILES.names


def load(name: str) -> Format:
    """Return the format called `name`; an unknown name lists the known ones."""
    return _FILES.load(name)


def lines(path: Path) -> Iterator[Line]:
    """Stream the rows of a jsonl file, or those of a json file that holds one list (numbered from 1)."""
    if not path.is_file():
        raise RecordError(f"{path}: no such file")
    if path.suffix == ".json":
        try:
            rows = strict_json.load(path)
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}:{error.lineno}: broken JSON: {error.msg}") from None
        if not isinstance(rows, list):
            raise RecordError(f"{path}: a list of rows is needed, got {type(rows).__name__}")
        numbered: Iterable[tuple[int, Any]] = enumerate(rows, 1)
    else:
        numbered = _jsonl(path)
    for number, row in numbered:
        if not isinstance(row, dict):
            raise RecordError(f"{path}:{number}: an object is needed, got {row!r:.60}")
        yield Line(path, number, row)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as jsonl, or as one list where the file's name ends in .json; whole or not at all."""
    count = 0
    with atomic_write(path) as file:
        if path.suffix == ".json":
            listed = list(rows)
            count = len(listed)
            json.dump(listed, file, ensure_ascii=False, indent=1)
            file.write("\n")
        else:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    return count


def exact(box: Box, frame: Frame) -> list[float]:
    """Return x1, y1, x2, y2 on `frame`: the shortest numbers that are read back as this very box."""
    return [
        _shortest(share, side)
        for share, side in zip((box.x1, box.y1, box.x2, box.y2), (frame.width, frame.height) * 2, strict=True)
    ]


def _shortest(share: float, side: float) -> float:
    """Return the shortest decimal n with n / side == share."""
    product = share * side
    for digits in range(16):
        number = round(product, digits)
        if number / side == share:
            return int(number) if digits == 0 else number
    near = (product, math.nextafter(product, math.inf), math.nextafter(product, -math.inf))
    return next((number for number in near if number / side == share), product)


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            try:
                yield number, strict_json.loads(line.strip())
            except json.JSONDecodeError as error:
                raise RecordError(f"{path}:{number}: broken JSON at column {error.colno}: {error.msg}") from None


def entity_of(question: str) -> str:
    """Return what a question asks for: what stands in object tags, else the whole question without image tags."""
    marked = OBJECT.search(question)
    return (marked[1] if marked else question.replace("<image>", "")).strip() or UNKNOWN
