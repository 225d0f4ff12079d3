"""Grounding data of other tools, read into samples and written from them. One file per format, named after it.

A file defines `read(path, family, *, clip=False) -> Iterator[Sample]` (`clip` clips boxes to their image) and
`write(path, samples, family, style) -> int`; its docstring says where the format keeps its boxes. Image paths stay
relative to the file's folder, or absolute. A file that is read and written again keeps its numbers (of two that mean
the same box, the shorter); formats that hold decimals give back exactly the same box. Errors name file, line and field.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import AliasChoices, BaseModel, Field

from mllm.boxes import Box, Frame
from mllm.errors import BoxError, ImageError, RecordError
from mllm.io import strict_json
from mllm.io.files import atomic_write, no_such
from mllm.io.images import image_size
from mllm.records import Sample
from mllm.registry import Registry

UNKNOWN = ""
"""Domain of imported samples, whose files do not name it, and entity of things without a name there."""
OBJECT = re.compile(r"<\|object_ref_start\|>(.+?)<\|object_ref_end\|>", re.DOTALL)
"""How the Qwen-VL models mark the name of the object in question."""
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


class ChatTurn(BaseModel):
    """One turn of a conversation, in either spelling."""

    role: str = Field("", validation_alias=AliasChoices("role", "from"))
    content: str = Field(validation_alias=AliasChoices("content", "value"))


class ForeignRow(BaseModel):
    """What the rows of all formats may have."""

    id: Any = None


class ChatRow(ForeignRow):
    """A conversation about one image."""

    messages: list[ChatTurn] = Field(validation_alias=AliasChoices("messages", "conversations"))
    images: list[str] = Field(min_length=1, max_length=1)


M = TypeVar("M", bound=ForeignRow)


@dataclass(frozen=True, slots=True)
class Line(Generic[M]):
    """One row of a foreign file and where it stands."""

    path: Path
    number: int
    row: M
    clip: bool = False
    """Clip boxes to their image, instead of refusing those that leave it."""

    @property
    def id(self) -> str:
        """The row's id, or one made of the file's name and the line's number."""
        return f"{self.path.stem}-{self.number:06}" if self.row.id is None else str(self.row.id)

    def error(self, field: str, problem: str) -> RecordError:
        """Return an error that names file, line and field."""
        return RecordError(f"{self.path}:{self.number}: field {field}: {problem}")

    def box(self, field: str, numbers: Any, frame: Frame) -> Box:
        """Return the box that four numbers on `frame` describe."""
        if not isinstance(numbers, list | tuple):
            raise self.error(field, f"a list of four numbers is needed, got {numbers!r:.60}")
        try:
            return Box.from_xyxy(numbers, frame, clip=self.clip)
        except BoxError as error:
            hint = "; correct it, or clip boxes to their image with --clip-boxes" if "leaves" in str(error) else ""
            raise self.error(field, f"{error}{hint}") from None

    def sample(
        self, image: str, size: Frame, entity: str, question: str, boxes: tuple[Box, ...], **more: Any
    ) -> Sample:
        """Return the row's sample: of task `ground_all` if it has several boxes, otherwise `ground`."""
        task = "ground_all" if len(boxes) > 1 else "ground"
        return Sample(self.id, task, image, size, UNKNOWN, entity, question, boxes, **more)

    def image_size(self, field: str, name: str) -> Frame:
        """Return the size in pixels of the image `name`, whose path is relative to the file's folder."""
        try:
            return image_size(self.path.parent / name)
        except ImageError as error:
            raise self.error(field, str(error)) from None


_FILES = Registry(__name__, "format")
names, load = _FILES.names, _FILES.load


def read_lines(path: Path, model: type[M], *, clip: bool = False) -> Iterator[Line[M]]:
    """Stream the rows of a file, checked by `model`: one object a line, or one list (numbered from 1).

    Its first character decides, not its name: lists are called .jsonl, and lines .json.
    """
    if not path.is_file():
        raise RecordError(no_such(path, "file"))
    with path.open("rb") as file:
        whole = file.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    for number, row in enumerate(strict_json.read(path, list, kind=RecordError), 1) if whole else _jsonl(path):
        yield Line(path, number, strict_json.parsed(row, model, f"{path}:{number}: ", kind=RecordError), clip)


def question_and_answer(line: Line[Any]) -> tuple[str, str]:
    """Return the texts of the user's turn, without the image tag, and of the assistant's; a system turn is skipped."""
    turns = [turn for turn in line.row.messages if turn.role != "system"]
    if [_ROLES.get(turn.role) for turn in turns] != ["user", "assistant"]:
        raise line.error("messages", "one turn of the user and one of the assistant are needed")
    return turns[0].content.replace("<image>", "").strip(), turns[1].content


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows atomically as jsonl, or as one list where the file's name ends in .json."""
    rows = list(rows)
    with atomic_write(path) as file:
        if path.suffix == ".json":
            file.write(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return len(rows)


def exact(box: Box, frame: Frame) -> list[float]:
    """Return x1, y1, x2, y2 on `frame`: the shortest numbers that are read back as exactly this box."""
    sides = (frame.width, frame.height) * 2
    return [_shortest(share, side) for share, side in zip((box.x1, box.y1, box.x2, box.y2), sides, strict=True)]


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
    """Return what a question asks for: the text in object tags, else the whole question without image tags."""
    marked = OBJECT.search(question)
    return (marked[1] if marked else question.replace("<image>", "")).strip() or UNKNOWN
