"""A full disk: nothing that was written before is lost, the file and its disk are named, and the run goes on later."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mllm.io.files import DISK_FULL, atomic_folder, disk_full, naming_full_disk
from mllm.io.images import open_image
from mllm.io.jsonl import append_jsonl, read_jsonl
from mllm.records import Score

ROOT = Path(__file__).resolve().parents[2]
APPEND = "while True: append_jsonl(file, Score(1.0, {'a': 1.0}))"
REPLACE = "write_jsonl(file, [Score(0.5, {'b': 1.0})] * 50)"
FOLDER = "with atomic_folder(file) as new: (new / 'a').write_text('new'); (new / 'b').write_text('x' * 900)"
PICTURE = "save_image(Image.effect_noise((400, 400), 90).convert('RGB'), file)"


def on_a_full_disk(file: Path, work: str, limit: int = 500) -> subprocess.CompletedProcess[str]:
    """Run `work` where no file may grow beyond `limit` bytes; the last write before that is a short one."""
    program = (
        "import resource, sys\nfrom pathlib import Path\nfrom PIL import Image\n"
        "from mllm.cli.programs import run_program\nfrom mllm.io.files import atomic_folder\n"
        "from mllm.io.images import save_image\n"
        "from mllm.io.jsonl import append_jsonl, write_jsonl\nfrom mllm.records import Score\n"
        f"file = Path(sys.argv[1])\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"def main():\n    {work}\nrun_program(main)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(file)], cwd=ROOT, timeout=120, capture_output=True, text=True
    )


def test_an_append_is_whole_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    ended = on_a_full_disk(file, APPEND)
    rows = list(read_jsonl(file, Score))  # no torn line at the end
    assert len(rows) == 500 // len(file.read_bytes().splitlines()[0] + b"\n")
    disk = next(place for place in file.parents if place.is_mount())
    assert ended.stderr == (
        f"error: disk full: {file}, on the disk at {disk} (File too large). Make room, or name a folder on another "
        "disk; the same command continues\n"
    )
    assert ended.returncode == 1
    append_jsonl(file, rows[0])
    assert len(list(read_jsonl(file, Score))) == len(rows) + 1


@pytest.mark.ci
@pytest.mark.parametrize("name, work", [("rows.jsonl", REPLACE), ("a.jpg", PICTURE), ("a.png", PICTURE)])
def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path, name: str, work: str) -> None:
    file = tmp_path / name
    file.write_text("old")
    ended = on_a_full_disk(file, work)
    assert f"disk full: {file}, on the disk" in ended.stderr and "Traceback" not in ended.stderr
    assert file.read_text() == "old" and os.listdir(tmp_path) == [name]


@pytest.mark.ci
def test_a_picture_that_a_short_write_would_cut_is_not_kept(tmp_path: Path) -> None:
    assert on_a_full_disk(tmp_path / "whole.jpg", PICTURE, 10_000_000).returncode == 0
    size = (tmp_path / "whole.jpg").stat().st_size
    assert np.asarray(open_image(tmp_path / "whole.jpg")).shape == (400, 400, 3)
    for short in (1, 500, size // 2):  # the last block is cut, and with it no further write that would say so
        assert on_a_full_disk(tmp_path / "cut.jpg", PICTURE, size - short).returncode == 1
    assert os.listdir(tmp_path) == ["whole.jpg"]


def test_output_that_does_not_fit_on_its_disk() -> None:
    """`fieldmark leaderboard ... > table.md`: what is printed last, and Python's own flush at the end."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mllm.cli", "--help"]
        ended = subprocess.run(command, cwd=ROOT, timeout=120, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.stderr.startswith("error: disk full: /dev/full, on the disk at /dev") and ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", DISK_FULL)
def test_every_error_of_a_full_disk_names_the_file(number: int, tmp_path: Path) -> None:
    with pytest.raises(OSError) as found, naming_full_disk(tmp_path / "deep" / "a.bin"):
        raise OSError(number, os.strerror(number))
    line = disk_full(found.value)
    assert line.startswith(f"disk full: {tmp_path}/deep/a.bin, on the disk at /") and os.strerror(number) in line
    assert disk_full(OSError(number, "no name")).startswith("disk full (no name). Make room")


@pytest.mark.parametrize(
    "error, says",
    [
        (Exception("I/O error: File too large (os error 27)"), "File too large"),
        (RuntimeError("open file failed because of errno 28 on fopen: No space"), "No space left on device"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 6 vs 0\nframe #0"),
            "unexpected pos 6",
        ),
    ],
)
def test_libraries_that_write_by_themselves(error: Exception, says: str) -> None:
    with pytest.raises(OSError) as found, naming_full_disk("out/a.bin"):
        raise error
    line = disk_full(found.value)
    assert line.startswith("disk full: out/a.bin, on the disk at /") and says in line and "\n" not in line


def test_of_a_copy_the_target_is_named() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "from.bin", None, "to.bin")
    assert disk_full(error).startswith("disk full: to.bin, on the disk at /")


def test_a_folder_gets_all_of_its_files_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in "ac":
        (folder / name).write_text("old")
    ended = on_a_full_disk(folder, FOLDER)
    assert f"disk full: {folder}, on the disk" in ended.stderr and os.listdir(tmp_path) == ["weights"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "old", "c": "old"}
    with atomic_folder(folder) as new:
        (new / "a").write_text("new")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "new", "c": "old"}


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(OSError) as found, naming_full_disk("a.bin"):
        raise OSError(errno.EACCES, "not yours")
    assert found.value.filename is None
    with pytest.raises(RuntimeError, match="shape"), naming_full_disk("a.bin"):
        raise RuntimeError("shape mismatch")
    with pytest.raises(OSError) as full, naming_full_disk("/dev/full"), open("/dev/full", "w") as file:
        file.write("a")
        file.flush()
    assert full.value.errno == errno.ENOSPC and full.value.filename == "/dev/full"
