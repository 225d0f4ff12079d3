"""Strict JSON: malformed input raises JSONDecodeError, and data of another shape an error that names the field."""

import json
import math
from functools import cache
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

from mllm.errors import FieldmarkError
from mllm.io.files import no_such

T = TypeVar("T")
Kind = type[FieldmarkError]


def loads(text: str | bytes, **options: Any) -> Any:
    """Parse JSON as `json.loads` does, but refuse a key that an object holds twice.

    Raises JSONDecodeError: broken, not UTF-8, nested too deeply, a duplicate key, or a number of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, **options)
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


def read(
    path: Path, shape: type[T] | Any = Any, *, advice: str = "", kind: Kind = FieldmarkError, nan: bool = False
) -> T | Any:
    """Read a JSON file of a given shape: `dict[str, int]`, a `BaseModel` (which ignores further fields by default) ...

    `advice` says what to do about a file that cannot be read; `kind` is the class of the error; `nan` lets NaN pass, as
    some programs write it for what is not known. Raises FieldmarkError: no such file, malformed JSON (names the line),
    another shape (names the field).
    """
    end = f"; {advice}" if advice else ""
    if not path.is_file():
        raise kind(no_such(path, "file") + end)
    try:
        content = load(path) if nan else load(path, parse_constant=_finite, parse_float=_finite)
    except JSONDecodeError as error:
        lines = error.msg == "Extra data"
        problem = "a second value, but one is needed; is this a .jsonl file?" if lines else f"broken JSON: {error.msg}"
        raise kind(f"{path}:{error.lineno}: {problem}{end}") from None
    return parsed(content, shape, f"{path}: ", advice=advice, kind=kind)


def parsed(content: Any, shape: type[T] | Any, where: str, *, advice: str = "", kind: Kind = FieldmarkError) -> T | Any:
    """Return parsed JSON in a given shape, without conversions ("1" is not a number). `where` begins the error."""
    from pydantic import ValidationError

    end = f"; {advice}" if advice else ""
    try:
        return _adapter(shape).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        place = where + (f"field {field:.200}: " if field else "")
        raise kind(place + _problem(first) + end) from None


@cache
def _adapter(shape: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _problem(error: Any) -> str:
    if short := {"missing": "is missing", "extra_forbidden": "unknown field"}.get(error["type"]):
        return short
    message = error.get("ctx", {}).get("error", error["msg"])
    if error["type"] == "model_type":
        message = "an object is needed"
    return f"{message}, got {error['input']!r:.60}"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; Python's own reader would silently keep the last of two values with one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise JSONDecodeError(f"key {next(name for name in names if names.count(name) > 1)!r} is given twice", "", 0)
    return found


def _finite(number: str) -> float:
    """Refuse what Python reads as a number and JSON does not: NaN, Infinity, 1e999."""
    value = float(number)
    if not math.isfinite(value):
        raise JSONDecodeError(f"{number} is not a JSON number", "", 0)
    return value
