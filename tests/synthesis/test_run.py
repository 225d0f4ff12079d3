"""A run lists rows and maps items to rows so that it can be stopped anywhere; a complete folder is left alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from mllm.boxes import Box, Frame
from mllm.data import manifest
from mllm.errors import FieldmarkError
from mllm.io.jsonl import read_jsonl
from mllm.records import Photo
from mllm.synthesis.run import SynthesisRun, in_order
from tests.support.photos import one_kind


def photo(name: str) -> Photo:
    return one_kind(name, "x", Frame(4, 4), "bird", "wren", (Box(0, 0, 1, 1),))


def test_rows_come_in_the_order_of_their_items_and_are_made_once(tmp_path: Path) -> None:
    run = SynthesisRun[Any](None, tmp_path, workers=3)
    names, made = [f"p{n}" for n in (3, 1, 2, 0)], []

    def make(name: str) -> Photo:
        if name == "p2" and not made.count("again"):
            raise FieldmarkError("stopped")
        made.append(name)
        return photo(name)

    def rows() -> list[Photo]:
        return run.map_rows(tmp_path / "rows.jsonl", Photo, names, make, title="rows", name=str)

    with pytest.raises(FieldmarkError, match="stopped"):
        rows()
    assert not (tmp_path / "rows.jsonl").exists()
    written = {row.id for row in read_jsonl(tmp_path / "rows.part.jsonl", Photo)}
    made[:] = ["again"]
    assert [row.id for row in rows()] == names and not written & set(made)
    made[:] = []
    assert [row.id for row in rows()] == names and not made, "a finished file is read, not made"


def test_a_listing_resumes_with_the_rows_that_are_missing(tmp_path: Path) -> None:
    run, made = SynthesisRun[Any](None, tmp_path), []
    log = tmp_path / "photos.part.jsonl"

    def rows(last: int = 4):
        yield from (photo(str(number)) for number in range(last))
        if last < 4:
            raise FieldmarkError("stopped")

    def make(row: Photo) -> Photo:
        made.append(row.id)
        return row

    with pytest.raises(FieldmarkError, match="stopped"):
        run.list_rows(tmp_path / "photos.jsonl", rows(3), "photos", make)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0] + lines[2])  # a row was lost in the middle
    for _ in range(2):
        run.list_rows(tmp_path / "photos.jsonl", rows(), "photos", make)
    assert [row.id for row in read_jsonl(tmp_path / "photos.jsonl", Photo)] == list("0123")
    assert made == list("012") + list("13")


def test_stages_run_until_the_folder_is_complete_and_never_after(tmp_path: Path) -> None:
    run, done = SynthesisRun[Any](None, tmp_path / "out"), []

    def stages() -> None:
        done.append(1)
        manifest.finish(run.out, {"rows": 0}, [])

    first = run.complete(stages, {"seed": 1})
    assert run.complete(stages, {"seed": 1}) == first and len(done) == 1
    with pytest.raises(FieldmarkError, match="seed = 1, now it is 2"):
        (run.out / "rows.jsonl").write_text("")
        run.complete(stages, {"seed": 2})


def test_a_listing_resumes_after_a_torn_row_and_after_its_last_step(tmp_path: Path) -> None:
    run, file, log = SynthesisRun[Any](None, tmp_path), tmp_path / "photos.jsonl", tmp_path / "photos.part.jsonl"

    def listed(*, stop: bool = False):
        yield from (photo(name) for name in ("b", "a"))
        if stop:
            raise FieldmarkError("stopped")

    with pytest.raises(FieldmarkError, match="stopped"):
        run.list_rows(file, listed(stop=True), "photos")
    text = log.read_text()
    log.write_text(text[:-30])
    run.list_rows(file, listed(), "photos")
    assert [row.id for row in read_jsonl(file, Photo)] == ["b", "a"] and not log.exists()
    log.write_text(text)  # as if it had been killed between renaming and tidying up
    run.list_rows(file, listed(), "photos")
    assert not log.exists()
    run.list_rows(tmp_path / "none.jsonl", (), "photos")
    assert (tmp_path / "none.jsonl").read_text() == ""


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
