"""JSON files: read in the given shape, or refused with file, line or field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from mllm.errors import FieldmarkError
from mllm.io import strict_json


class Thing(BaseModel):
    name: str
    sizes: list[float] = Field(min_length=1)


def test_what_has_the_shape_is_read_and_more_fields_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text('\ufeff{"name": "a", "sizes": [1, 2.5], "more": null}', encoding="utf-8")
    assert strict_json.read(file, Thing) == Thing(name="a", sizes=[1, 2.5])
    assert strict_json.read(file) == {"name": "a", "sizes": [1, 2.5], "more": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"name": ]', "t.json:2: broken JSON: Expecting value; make it again"),
        (b"\xff", "t.json:1: broken JSON: not UTF-8 at byte 1"),
        ("[" * 100_000, "t.json:1: broken JSON: nested too deeply"),
        ('{"name": "a", "sizes": [NaN]}', "NaN is not a JSON number"),
        ('{"name": "a", "sizes": [1e999]}', "1e999 is not a JSON number"),
        ("[1]", "t.json: an object is needed, got [1]"),
        ('{"name": "a"}', "t.json: field sizes: is missing; make it again"),
        ('{"name": 1, "sizes": [1]}', "t.json: field name: Input should be a valid string, got 1; make it again"),
        ('{"name": "a", "sizes": [1, true]}', "field sizes[1]: Input should be a valid number, got True"),
        ('{"name": "a", "sizes": []}', "field sizes: List should have at least 1 item"),
    ],
)
def test_anything_else_is_an_error(tmp_path: Path, text: Any, message: str) -> None:
    file = tmp_path / "t.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FieldmarkError) as error:
        strict_json.read(file, Thing, advice="make it again")
    assert message in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match="t.json: no such file; make it again"):
        strict_json.read(tmp_path / "t.json", advice="make it again")


def test_lines_in_the_place_of_one_value_are_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(FieldmarkError, match=r"t.json:2: a second value, but one is needed; is this a .jsonl file\?"):
        strict_json.read(tmp_path / "t.json", dict)
