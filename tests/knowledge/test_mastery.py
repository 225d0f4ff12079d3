"""Mastery files: levels, counting, what is read and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm.errors import RecordError
from mllm.knowledge.mastery import LEVELS, Entry, MasteryTable, level, load_mastery


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [(1, 0), (0.70, 0), (0.69, 1), (0.45, 1), (0.44, 2), (0.30, 2), (0.29, 3), (0.10, 3), (0.09, 4), (0, 4)],
)
def test_levels_are_karls(accuracy: float, expected: int) -> None:
    assert level(accuracy) == LEVELS[expected]


def test_counting_saving_and_reading_again(tmp_path: Path) -> None:
    answers = [("wren", 1.0), ("owl", 0.0), ("wren", 0.0), ("owl", 0.25), ("wren", 1.0)]
    table = MasteryTable.counted(answers)
    assert table["wren"] == Entry("mostly correct", 2.0, 3) and table["owl"].accuracy == 0.125
    again = load_mastery(table.save(tmp_path / "m.json", {"by": "choices"}))
    assert dict(again) == dict(table) and "WREN" in again and again.missing(["kite", "Wren", "kite"]) == ["kite"]
    assert again.shares() == dict(zip(LEVELS, (0, 0.5, 0, 0.5, 0), strict=True))


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    import os

    path = MasteryTable.counted([("wren", 0.0)]).save(tmp_path / "m.json")
    assert load_mastery(path)["wren"].level == LEVELS[4]
    MasteryTable.counted([("wren", 1.0)]).save(path)
    os.utime(path, ns=(1, 1))
    assert load_mastery(path)["wren"].level == LEVELS[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "m.json:1: broken JSON"),
        ("[]", "Input should be a valid dictionary"),
        ("{}", "the file holds no entity"),
        ('{"schema": "x/1", "entities": {}}', "field schema: Input should be 'fieldmark.mastery/1', got 'x/1'"),
        (
            '{"wren": {"knowledge_category": "fair"}}',
            "entity 'wren': field knowledge_category: Input should be 'completely correct'",
        ),
        ('{"wren": {"right": 1}}', "entity 'wren': field asked"),
        ('{"wren": {"right": 3, "asked": 2}}', "entity 'wren': field right: must be from 0 to 2, got 3"),
        ('{"wren": 1}', "entity 'wren': an object"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, data: str, message: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(data)
    with pytest.raises(RecordError, match=message):
        load_mastery(path)


def test_an_unknown_entity_names_the_nearest() -> None:
    table = MasteryTable({"black redstart": Entry(LEVELS[0])}, "karl.json")
    with pytest.raises(RecordError, match="karl.json: no level for 'blak redstart'.*nearest: black redstart"):
        table.level("blak redstart")
    assert table.level("blak redstart", LEVELS[4]) == LEVELS[4]


def test_levels_without_counts_are_kept_beside_counted_ones(tmp_path: Path) -> None:
    table = MasteryTable({"wren": Entry(LEVELS[3]), "owl": Entry(LEVELS[0], 3.0, 4), "kite": Entry(LEVELS[4], 0.0, 0)})
    again = load_mastery(table.save(tmp_path / "m.json"))
    assert dict(again) == {"wren": Entry(LEVELS[3]), "owl": Entry(LEVELS[0], 3.0, 4), "kite": Entry(LEVELS[4])}


def test_karls_file_as_json(tmp_path: Path) -> None:
    path = tmp_path / "results-visual_knowledge.json"
    path.write_text(json.dumps({"wren": {"knowledge_category": "mostly incorrect", "answers": ["A"]}}))
    assert load_mastery(path)["wren"] == Entry("mostly incorrect") and load_mastery(path)["wren"].accuracy is None


def test_two_names_of_the_data_do_not_share_a_level() -> None:
    table = MasteryTable.counted([("F-16A", 1.0), ("F-16B", 0.0)])
    table.check(["F-16A", "F-16B", "F-16A"], "x")
    for other in ("F/16A", "f 16a", "F_16A"):
        with pytest.raises(RecordError, match=f"{other!r} and 'F-16A' are the same name; keep one"):
            table.check(["F-16A", other], "x")
