"""CSV tables of users: strict about header and cells, errors that name file, line and column."""

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from mllm.errors import SourceError
from mllm.io.files import read_text

log = logging.getLogger(__name__)
Row = dict[str, str]
Placed = tuple[str, Row]
"""`file:line` and the row."""


def read_table(file: Path) -> tuple[list[str], list[tuple[str, dict[Any, Any]]]]:
    """Read a csv table: header, and rows as `csv.DictReader` gives them, with `file:line`; or raise SourceError.

    Cells are divided by commas, or by semicolons or tabs if the header holds no comma.
    """
    text = read_text(file, SourceError)
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        return header, [(f"{file}:{reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise SourceError(f"{file}:{reader.line_num + 1}: broken csv: {error}; is a quote left open?") from None


def checked_rows(
    file: Path,
    needed: Sequence[str],
    optional: Sequence[str],
    *,
    filled: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Iterator[Placed]:
    """Yield `file:line` and stripped row of a table with exactly these columns; those in `filled` must not be empty.

    With `columns` (our name -> the table's) others may be there: a warning names them.
    """
    header, lines = read_table(file)
    if not header:
        raise SourceError(f"{file}: the file is empty; its first line names the columns: {', '.join(needed)}, ...")
    for name in header:
        if header.count(name) > 1:
            raise SourceError(f"{file}:1: column {name!r} is there twice")
        if columns is None:
            _check_known(name, (*needed, *optional), file)
    taken = columns_read(f"{file}:1", header, (*needed, *optional), columns or {})
    for name in needed:
        if name not in taken:
            raise SourceError(f"{file}:1: column {name!r} is missing; found: {', '.join(header)}")
    if not lines:
        raise SourceError(f"{file}: the table has a header and no rows")
    for where, cells in lines:
        if None in cells or None in cells.values():
            raise SourceError(f"{where}: the row does not have as many cells as the header ({len(header)})")
        row = {name: cells[theirs].strip() for name, theirs in taken.items()}
        for column in filled:
            if not row[column]:
                raise SourceError(f"{where}: field {column} is empty")
        yield where, row


def columns_read(where: str, header: Sequence[str], known: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return our name of each column that is read -> the input's; a warning names the others."""
    for name, theirs in columns.items():
        if theirs not in header:
            raise SourceError(
                f"{where}: column {theirs!r} is missing (--column {name}={theirs}); found: {', '.join(header)}"
            )
    taken = {name: name for name in header if name in known} | dict(columns)
    if others := [name for name in header if name not in taken.values()]:
        log.warning("%s: columns that are not read: %s", where, ", ".join(others))
    return taken


def _check_known(name: str, known: Sequence[str], file: Path) -> None:
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SourceError(f"{file}:1: unknown column {name!r}.{hint} Known: {', '.join(known)}.")


def by_image(rows: Iterable[Placed]) -> dict[str, list[Placed]]:
    """Group rows by their column `image`, in the order in which the table first names the images."""
    groups: dict[str, list[Placed]] = {}
    for where, row in rows:
        groups.setdefault(row["image"], []).append((where, row))
    return groups


def check_same(rows: Sequence[Placed], columns: Sequence[str], why: str = "") -> None:
    """Refuse rows of one image that differ in a column."""
    where, first = rows[0]
    for column in columns:
        for other, row in rows[1:]:
            if row.get(column) != first.get(column):
                raise SourceError(
                    f"{other}: field {column}: {row.get(column)!r} differs from {first.get(column)!r}, given for the"
                    f" same image at {where}{why}"
                )


def numbers_of(row: Row, columns: Sequence[str], where: str) -> tuple[float, ...] | None:
    """Return the numbers of the named columns; None if the row leaves all of them empty or the table lacks them."""
    texts = [row.get(column, "") for column in columns]
    if not any(texts):
        return None
    numbers = []
    for column, text in zip(columns, texts, strict=True):
        try:
            numbers.append(float(text))
        except ValueError:
            hint = "; write decimals with a point" if "," in text else ""
            raise SourceError(f"{where}: field {column}: a number is needed, got {text!r:.60}{hint}") from None
    return tuple(numbers)
