"""jsonl files of records: strict streaming reads, atomic writes, and logs that survive a stopped program.

A bad row raises `RecordError` that starts with `file:line` and names the field. Rows are coded by `mllm.io.codec`.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mllm.errors import RecordError
from mllm.io.codec import decode, encode
from mllm.io.files import atomic_write, naming_full_disk, no_such

R = TypeVar("R")


def read_jsonl(path: str | Path, cls: type[R], *, unique: str | None = None, torn_tail: bool = False) -> Iterator[R]:
    """Stream the rows of a record file.

    Args:
        path: a jsonl file whose rows carry `cls.SCHEMA`. Empty lines are passed over.
        cls: a record class (dataclass with a SCHEMA).
        unique: name of a field whose value may occur once only, e.g. "id".
        torn_tail: leave out a last line that was cut off in the middle (for logs written by `append_jsonl`).

    Raises RecordError: no such file (at once); a bad row (when it is reached). Names file, line and field.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(no_such(path, "record file"))
    return (row for _, row in numbered(path, cls, unique, torn_tail))


def numbered(path: Path, cls: type[R], unique: str | None, torn_tail: bool = False) -> Iterator[tuple[int, R]]:
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
                whole = number == 1 and line.lstrip().startswith(b"[")
                hint = f"; a list in JSON has to be one object a line: jq -c '.[]' {path.name}" if whole else ""
                raise RecordError(f"{path}:{number}: {error}{hint}") from None
            if unique is not None:
                key = getattr(row, unique)
                if key in seen:
                    raise RecordError(f"{path}:{number}: field {unique}: {key!r} was used before, on line {seen[key]}")
                seen[key] = number
            yield number, row


def check_unique(rows: Iterable[R], key: str = "id") -> list[R]:
    """Return the rows as a list, or raise `RecordError` naming the first value of field `key` that occurs twice."""
    found: dict[Any, R] = {}
    for row in rows:
        value = getattr(row, key)
        if value in found:
            raise RecordError(f"field {key}: {value!r} occurs twice")
        found[value] = row
    return list(found.values())


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
    append_line(Path(path), encode(row))


def append_line(path: Path, line: str) -> None:
    """Append a line of JSON to a log, as `append_jsonl` does: all of it, or nothing where the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    repair_jsonl(path)
    with naming_full_disk(path), path.open("ab", buffering=0) as file:
        start, left = file.seek(0, os.SEEK_END), (line + "\n").encode()
        try:
            while left:  # a full disk takes the beginning of a line without a word, and refuses the rest
                left = left[file.write(left) :]
        except BaseException:  # including KeyboardInterrupt
            file.truncate(start)
            raise


def repair_jsonl(path: str | Path) -> int:
    """Cut a torn last line off a log and return how many bytes went. A whole one that only lacks its end gets it."""
    path = Path(path)
    if not path.exists() or path.stat().st_size == 0:
        return 0
    with naming_full_disk(path), path.open("r+b") as file:
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
