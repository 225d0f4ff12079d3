"""Full disks: some programs here, every program in `make kill` (tests/support/full_disk.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.support import full_disk


def on_full_disks(run: Run, root: Path, *flags: str, seconds: int) -> str:
    env = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = run("tests/support/full_disk.py", *flags, timeout=seconds, env=env)
    assert done.returncode == 0 and "nothing lost" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.ci
@pytest.mark.timeout(900)
def test_some_programs_lose_nothing(run: Run, root: Path) -> None:
    said = on_full_disks(run, root, "--limits", "0", "--only", "sharegpt", "report", "captions", seconds=880)
    assert said.count("ok\n") == 3


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_program_loses_anything(run: Run, root: Path) -> None:
    on_full_disks(run, root, seconds=7100)


@pytest.mark.parametrize(
    "name, data, is_cut",
    [
        ("a.jsonl", b'{"a": 1}\n', False),
        ("a.jsonl", b'{"a": 1}\n{"a"', True),
        ("a.jsonl", b"", False),
        ("a.json", b"", True),
        ("a.png", b"\x89PNG", True),
        ("a.html", b"<html></html>\n", False),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{", True),
    ],
)
def test_files_that_are_cut_off_are_noticed(name: str, data: bytes, is_cut: bool) -> None:
    assert full_disk.cut(name, data) is is_cut


def test_files_of_one_kind() -> None:
    disk = Path("/disk")
    names = ["/disk/out/checkpoint-2/a.json", "/disk/out/images/wren-7.png", "/disk/out/.a.json.host-12.tmp", "/tmp/a"]
    kinds = ["out/checkpoint-#/a.json", "out/images/*.png", "out/.a.json.host-#.tmp", None]
    assert [full_disk.kind_of(name, disk) for name in names] == kinds


def test_a_program_that_loses_a_row_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that writes in place, and does not close its file: the error is lost with it."""
    program = tmp_path / "careless.py"
    program.write_text(
        "import sys, os\nfile = sys.argv[1]\n"
        "rows = open(file).read() if os.path.exists(file) else ''\n"
        "for number in range(rows.count(chr(10)), 3):\n"
        "    rows += '{}' + chr(10)\n    open(file, 'w').write(rows)\n"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    trial = full_disk.Trial("careless", [str(program), str(disk / "rows.jsonl")], disk)
    trial.whole()
    trial.in_turn(0)
    (problem,) = trial.problems
    assert problem.startswith("careless in turn, 0 bytes: rows.jsonl is not the same: b'{}")
