"""Rows survive any stop; work done in threads keeps its order."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.io.jsonl import read_jsonl
from mllm.records import Photo
from mllm.synthesis.stages import RowLog, in_order


def photo(name: str) -> Photo:
    return Photo(name, f"{name}.jpg", Frame(4, 4), "bird", "wren", (Box(0, 0, 1, 1),))


def test_a_log_resumes_after_a_torn_row_and_after_its_last_step(tmp_path: Path) -> None:
    file = tmp_path / "photos.jsonl"
    first = RowLog(file, Photo)
    first.add(photo("a"))
    first.add(photo("b"))
    text = first.log.read_text()
    first.log.write_text(text[:-30])
    again = RowLog(file, Photo)
    assert again.done == 1 and not again.finished
    again.add(photo("b"))
    again.close()
    assert [row.id for row in read_jsonl(file, Photo)] == ["a", "b"] and not again.log.exists()
    again.log.write_text(text)  # as if it had been killed between renaming and tidying up
    assert RowLog(file, Photo).finished and not again.log.exists()
    empty = RowLog(tmp_path / "none.jsonl", Photo)
    empty.close()
    assert empty.file.read_text() == ""


def test_in_order_runs_ahead_only_a_little_and_passes_errors_on() -> None:
    made, taken, lock = [0], 0, threading.Lock()

    def make(number: int) -> int:
        with lock:
            made[0] += 1
        if number == 50:
            raise FieldmarkError("fifty")
        return number

    with pytest.raises(FieldmarkError, match="fifty"):
        for value in in_order(make, range(100), 3):
            assert value == taken
            taken += 1
            assert made[0] - taken <= 6
    assert taken == 50
