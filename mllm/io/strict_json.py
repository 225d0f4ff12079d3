"""Strict JSON: whatever is malformed raises JSONDecodeError, or a Fieldmark error that names file, line and field."""

from __future__ import annotations

import json
import math
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

from mllm.errors import FieldmarkError

T = TypeVar("T")
Kind = type[FieldmarkError]


def loads(text: str | bytes, **options: Any) -> Any:
    """Parse JSON as `json.loads` does.

    Raises:
        JSONDecodeError: malformed, not UTF-8, nested too deeply, or a number with too many digits.
    """
    try:
        return json.loads(text, **options)
    except JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise JSONDecodeError(f"not UTF-8 at byte {error.start + 1}", "", 0) from None
    except RecursionError:
        raise JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise  # from a hook
        raise JSONDecodeError("a number with too many digits", "", 0) from None


def load(path: Path, **options: Any) -> Any:
    """Parse a file, with or without a byte order mark. Raises as `loads`, and `OSError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise JSONDecodeError(f"not UTF-8 at byte {error.start + 1}", "", 0) from None
    return loads(text, **options)


def read(path: Path, shape: type[T] | Any = Any, *, advice: str = "", kind: Kind = FieldmarkError) -> T | Any:
    """Read a JSON file of a given shape.

    Args:
        path: the file.
        shape: a type that pydantic can validate: `dict[str, int]`, a `BaseModel` (other fields are ignored).
        advice: what to do about an invalid file; appended to error messages.
        kind: class of the error to raise.

    Raises:
        FieldmarkError: no such file, malformed JSON (names the line), another shape (names the field).
    """
    end = f"; {advice}" if advice else ""
    if not path.is_file():
        raise kind(f"{path}: no such file{end}")
    try:
        content = load(path, parse_constant=_finite, parse_float=_finite)
    except JSONDecodeError as error:
        raise kind(f"{path}:{error.lineno}: broken JSON: {error.msg}{end}") from None
    return parsed(content, shape, f"{path}: ", advice=advice, kind=kind)


def parsed(content: Any, shape: type[T] | Any, where: str, *, advice: str = "", kind: Kind = FieldmarkError) -> T | Any:
    """Validate parsed JSON strictly ("1" is not a number). `where` is the beginning of the error message."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(shape).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        message = where + (f"field {field:.200}: " if field else "")
        message += "is missing" if first["type"] == "missing" else f"{first['msg']}, got {first['input']!r:.60}"
        raise kind(message + (f"; {advice}" if advice else "")) from None


def _finite(number: str) -> float:
    """Refuse numbers that Python accepts and JSON does not: NaN, Infinity, 1e999."""
    value = float(number)
    if not math.isfinite(value):
        raise JSONDecodeError(f"{number} is not a number", "", 0)
    return value
