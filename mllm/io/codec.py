"""One record to one line of JSON and back, checked by pydantic against the record's own type hints.

Knows no files: `mllm.io.jsonl` adds file and line to the errors raised here.
"""

import json
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AllowInfNan, ConfigDict, Strict, TypeAdapter, ValidationError

from mllm.errors import RecordError
from mllm.io import strict_json

R = TypeVar("R")
Int = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]
_NEEDED = {
    "string_type": "a text is needed",
    "int_type": "a whole number is needed",
    "float_type": "a number is needed",
    "finite_number": "a finite number is needed",
    "bool_type": "true or false is needed",
    "tuple_type": "a list is needed",
    **dict.fromkeys(("dict_type", "mapping_type", "dataclass_type"), "an object is needed"),
}
"""pydantic's error types in the words of JSON."""


class Record:
    """Base class of records: frozen dataclasses whose rows must hold no unknown field.

    A record that is written by itself has a `SCHEMA` (name/version), which stands in each row, and may have `UPGRADES`
    from older schemas. Fields are annotated with `Int`, `Flag` and `Number`, which convert nothing ("1" is no number).
    """

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


def encode(record: Any) -> str:
    """Write a record as one line of JSON (no line end) that starts with its schema."""
    schema = getattr(record, "SCHEMA", None)
    if schema is None or not is_dataclass(record):
        raise TypeError(f"{type(record).__name__} is not a record: a record is a dataclass with a SCHEMA")
    try:
        row = {"schema": schema} | _adapter(type(record)).dump_python(record)  # pyright: ignore[reportArgumentType]
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        # Half a surrogate pair (a token cut in the middle of a character) has no UTF-8, but it has an escape.
        return line if is_utf8(line) else json.dumps(row, allow_nan=False)
    except (TypeError, ValueError) as error:
        name = getattr(record, "id", "")
        raise RecordError(f"{schema} record {name!r} cannot be written as JSON: {error}") from error


def decode(line: str | bytes, cls: type[R]) -> R:
    """Read one line of JSON as a record of class `cls`; a row of an older schema is upgraded.

    Raises RecordError: broken JSON, an unknown schema, an unknown, missing or repeated field, a wrong type of value.
    """
    schema = getattr(cls, "SCHEMA", None)
    if schema is None:
        raise TypeError(f"{cls.__name__} is not a record: a record is a dataclass with a SCHEMA")
    try:
        row = strict_json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"broken JSON at column {error.colno}: {error.msg}") from None
    if not isinstance(row, dict):
        raise RecordError(f"a row must be a JSON object, got {_kind(row)}")
    if (found := row.pop("schema", None)) != schema:
        upgrade = getattr(cls, "UPGRADES", {}).get(found) if isinstance(found, str) else None
        if upgrade is None:
            why = "did another program or version write the file?"
            raise RecordError(f"field schema: {found!r} is not {schema!r}; {why}")
        row = upgrade(row)
    return _validated(row, cls)


def build(row: Any, cls: type[R], where: str) -> R:
    """Build a record from parsed JSON without a schema; `where` (file and field) begins the error message.

    Raises RecordError: an unknown or missing field, a value of the wrong type.
    """
    try:
        return _validated(row, cls)
    except RecordError as error:
        raise RecordError(f"{where}: {error}") from None


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@cache
def _adapter(cls: type[R]) -> TypeAdapter[R]:
    return TypeAdapter(cls)


def _validated(row: Any, cls: type[R]) -> R:
    """Build `cls` from a JSON object, or raise `RecordError` naming the first bad field."""
    if not isinstance(row, dict):
        raise RecordError(f"an object is needed, got {_kind(row)}")
    try:
        return _adapter(cls).validate_python(row)
    except ValidationError as error:
        raise RecordError(_message(error.errors(include_url=False)[0], cls)) from None


def _message(error: Any, cls: type[Any]) -> str:
    """Word one of pydantic's errors: the field's path, and what is needed there."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    kind = error["type"]
    if kind == "unexpected_keyword_argument":
        known = f"; known: {', '.join(item.name for item in fields(cls))}" if len(error["loc"]) == 1 else ""
        return f"unknown field {path}{known}"
    if kind == "missing":
        return f"field {path} is missing"
    if kind == "value_error":  # raised by the class itself, which names its own field
        words = str(error["ctx"]["error"])
        if not words.startswith("field "):
            return f"field {path}: {words}"
        return words.replace("field ", f"field {path}.", 1) if path else words
    if kind == "literal_error":
        expected = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
        return f"field {path}: {error['input']!r:.60} is none of {expected}"
    return f"field {path}: {_NEEDED.get(kind, error['msg'])}, got {_kind(error['input'])}"


def _kind(value: Any) -> str:
    """Name a JSON value for a message: its kind, and the value itself where it is short."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, dict):
        return "null" if value is None else "an object"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return f"{names.get(type(value), type(value).__name__)} ({value!r:.60})"
