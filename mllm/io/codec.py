"""One record to one line of JSON and back, checked against the record's own type hints.

Knows no files: `mllm.records` adds file and line to what is raised here.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from math import isfinite
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from mllm.boxes import Box, Frame
from mllm.errors import BoxError, FieldmarkError, RecordError
from mllm.io import strict_json

R = TypeVar("R")
_JSON_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def encode(record: Any) -> str:
    """Write a record as one line of JSON (no line end) that starts with its schema."""
    schema = getattr(record, "SCHEMA", None)
    if schema is None or not is_dataclass(record):
        raise TypeError(f"{type(record).__name__} is no record: a record is a dataclass with a SCHEMA")
    try:
        row = {"schema": schema} | _plain(record)
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        # Half a surrogate pair (a byte-level tokenizer cut off in mid-character) has no UTF-8, but it has an escape.
        return line if is_utf8(line) else json.dumps(row, allow_nan=False)
    except (TypeError, ValueError) as error:
        name = getattr(record, "id", "")
        raise RecordError(f"{schema} record {name!r} cannot be written as JSON: {error}") from error


def decode(line: str | bytes, cls: type[R]) -> R:
    """Read one line of JSON as a record of class `cls`.

    Raises:
        RecordError: broken JSON, another schema, an unknown, missing or twice given field, a value of the wrong kind.
    """
    schema = getattr(cls, "SCHEMA", None)
    if schema is None:
        raise TypeError(f"{cls.__name__} is no record: a record is a dataclass with a SCHEMA")
    try:
        row = strict_json.loads(line, object_pairs_hook=_no_twins)
    except json.JSONDecodeError as error:
        raise RecordError(f"broken JSON at column {error.colno}: {error.msg}") from None
    if not isinstance(row, dict):
        raise RecordError(f"a row must be a JSON object, got {_kind(row)}")
    found = row.pop("schema", None)
    if found != schema:
        raise RecordError(f"field schema: {found!r} is not {schema!r}; did another program or version write the file?")
    return _record(row, cls, "")


def build(row: Any, cls: type[R], where: str) -> R:
    """Build a record from parsed JSON that says no schema; `where` (file and field) begins the error message.

    Raises:
        RecordError: an unknown or missing field, a value of the wrong kind.
    """
    try:
        return _record(row, cls, "")
    except FieldmarkError as error:
        raise RecordError(f"{where}: {error}") from None


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """Turn records, boxes and tuples into what JSON has."""
    if isinstance(value, Box):
        return [value.x1, value.y1, value.x2, value.y2]
    if isinstance(value, Frame):
        return [value.width, value.height]
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@cache
def _hints(cls: type) -> dict[str, tuple[Any, bool]]:
    """Return each field of a record class with its type and whether it must be given."""
    hints = get_type_hints(cls)
    return {
        item.name: (hints[item.name], item.default is MISSING and item.default_factory is MISSING)
        for item in fields(cls)  # pyright: ignore[reportArgumentType]
    }


def _record(row: Any, cls: type[R], at: str) -> R:
    """Build `cls` from a JSON object; `at` is the path of the field it sits in, with a final dot, or empty."""
    if not isinstance(row, dict):
        raise RecordError(f"field {at.rstrip('.')}: an object is needed, got {_kind(row)}")
    hints = _hints(cls)
    if unknown := sorted(row.keys() - hints.keys()):
        raise RecordError(f"unknown field {at}{unknown[0]}; known: {', '.join(hints)}")
    if missing := [name for name, (_, needed) in hints.items() if needed and name not in row]:
        raise RecordError(f"field {at}{missing[0]} is missing")
    values = {name: _value(item, hints[name][0], f"{at}{name}") for name, item in row.items()}
    try:
        return cls(**values)
    except RecordError as error:
        raise RecordError(str(error).replace("field ", f"field {at}", 1)) from None


def _value(value: Any, hint: Any, at: str) -> Any:
    """Check a JSON value against a type hint and return it in that type; `at` is the field's path."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint is Box or hint is Frame:
        return _geometry(value, hint, at)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (item for item in arguments if item is not type(None))  # records use `X | None` and no other union
        return _value(value, hint, at)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecordError(f"field {at}: a list is needed, got {_kind(value)}")
        return tuple(_value(item, arguments[0], f"{at}[{index}]") for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise RecordError(f"field {at}: an object is needed, got {_kind(value)}")
        return {key: _value(item, arguments[1], f"{at}.{key}") for key, item in value.items()}
    if is_dataclass(hint):
        return _record(value, hint, f"{at}.")  # pyright: ignore[reportArgumentType]
    if hint is float and type(value) in (int, float):
        if not isfinite(value):  # Python's reader takes NaN and 1e999, which are no JSON numbers
            raise RecordError(f"field {at}: a finite number is needed, got {value!r}")
        return float(value)
    if type(value) is not hint:  # `type`, since bool is an int to isinstance
        raise RecordError(f"field {at}: {_JSON_NAMES[hint]} is needed, got {_kind(value)}")
    return value


def _geometry(value: Any, cls: type[Box] | type[Frame], at: str) -> Box | Frame:
    """Build a Box from four numbers or a Frame from two."""
    count = 4 if cls is Box else 2
    if not isinstance(value, list) or len(value) != count:
        raise RecordError(f"field {at}: a list of {count} numbers is needed, got {_kind(value)}")
    try:
        return cls(*value)
    except BoxError as error:
        raise RecordError(f"field {at}: {error}") from None


def _kind(value: Any) -> str:
    """Name a JSON value for a message: its kind, and the value itself where it is short."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, dict):
        return "null" if value is None else "an object"
    return f"{_JSON_NAMES[type(value)]} ({value!r:.60})"


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a name given twice (JSON would silently keep the last)."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise RecordError(f"field {next(name for name in names if names.count(name) > 1)} is given twice")
    return row
