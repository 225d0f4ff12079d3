"""jsonl files: rows stream, bad files are named, a kill leaves the old file, and a torn log goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import strategies as st

from mllm.errors import RecordError
from mllm.io.codec import encode
from mllm.io.jsonl import append_jsonl, check_unique, read_jsonl, write_jsonl
from mllm.records import Sample, Score, load_samples
from tests.test_records import SAMPLE

ROOT = Path(__file__).resolve().parents[2]
TEXT = st.text(min_size=1)


def test_rows_stream(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(encode(SAMPLE) + "\n" + "broken\n")
    rows = read_jsonl(file, Sample)
    assert isinstance(rows, Iterator)
    assert next(rows) == SAMPLE  # the second line has not been looked at
    with pytest.raises(RecordError):
        next(rows)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nowhere\.jsonl: no such record file"):
        read_jsonl(tmp_path / "nowhere.jsonl", Sample)
    (tmp_path / "empty.jsonl").touch()
    assert list(read_jsonl(tmp_path / "empty.jsonl", Sample)) == []
    with pytest.raises(RecordError, match="holds no sample"):
        load_samples(tmp_path / "empty.jsonl")


def test_windows_editors_are_forgiven(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + encode(SAMPLE).encode() + b"\r\n\r\n")
    assert list(read_jsonl(file, Sample)) == [SAMPLE]


def test_a_duplicate_id_is_named_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    write_jsonl(file, [SAMPLE, replace(SAMPLE, id="bird-2"), SAMPLE])
    assert len(list(read_jsonl(file, Sample))) == 3
    with pytest.raises(RecordError, match=rf"{file}:3: field id: 'bird-1' was used before, on line 1"):
        list(read_jsonl(file, Sample, unique="id"))
    with pytest.raises(RecordError, match="'bird-1' occurs twice"):
        check_unique([SAMPLE, SAMPLE])
    assert check_unique([SAMPLE]) == [SAMPLE]


def test_a_kill_in_the_middle_of_writing_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    write_jsonl(file, [SAMPLE])
    program = (
        "import os, signal, sys\n"
        "from mllm.io.jsonl import read_jsonl, write_jsonl\nfrom mllm.records import Sample\n"
        "def rows(path):\n"
        "    old = list(read_jsonl(path, Sample))\n"
        "    for _ in range(1000): yield old[0]\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_jsonl(sys.argv[1], rows(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert list(read_jsonl(file, Sample)) == [SAMPLE]
    assert len(os.listdir(tmp_path)) == 2  # its half-written file is there until somebody writes again
    write_jsonl(file, [])
    assert os.listdir(tmp_path) == ["samples.jsonl"]


def test_a_log_goes_on_after_every_possible_cut(tmp_path: Path) -> None:
    file = tmp_path / "log" / "outputs.jsonl"
    first, second = Score(1.0, {"a": 1.0}), Score(0.5, {"é": 2.0})
    append_jsonl(file, first)
    append_jsonl(file, second)
    whole = file.read_bytes()
    start = whole.index(b"\n") + 1
    for cut in range(start, len(whole) + 1):
        file.write_bytes(whole[:cut])
        kept = [first, second] if cut >= len(whole) - 1 else [first]  # only the line's end is lacking: a whole row
        assert list(read_jsonl(file, Score, torn_tail=True)) == kept
        append_jsonl(file, second)
        assert list(read_jsonl(file, Score)) == [*kept, second]
