"""The test of full disks: every program, with a full disk at each file that it writes.

    python tests/support/full_disk.py                          # every program; `make kill` runs it, too
    python tests/support/full_disk.py --only convert report

A program runs once undisturbed. Then the disk is full in turn at each kind of file that it opens and each folder that
it makes, always with the same command in the same folder, so that each run goes on where the one before it ended. Full
means `RLIMIT_FSIZE` of --limits bytes, from the moment at which the file is opened; and, where a tmpfs can be mounted,
a disk that grows in steps, which also meets the files that libraries open by themselves.

Each of these runs must end with code 1 and one line that names file and disk; no file may be cut off; files that were
finished must stay; and when there is room again, the same command must end in the bytes of the undisturbed run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.command_line import fork

STEPS = 4
"""Sizes of the growing disk."""
LEFTOVER = re.compile(r"(^|/)\.[^/]*\.(tmp|part|new)(/|$)")
VOLATILE = re.compile(
    r'"([a-z/_]*(?:seconds|runtime|per_second)|step_time)": ?[-\d.e]+|\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?'
)
"""What two runs may differ in: how long things took, and when."""
SAYS = re.compile(r"(?m)^error: disk full: (.+), on the disk at /.* \(.+\)\. Make room, or name a folder on another")


@dataclass
class Trial:
    """One program on a disk: what it ends in when undisturbed, and what goes wrong when the disk is full."""

    name: str
    words: Sequence[str]
    disk: Path
    expected: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    runs: int = 0
    hit: int = 0

    def whole(self) -> int:
        """Run undisturbed; return the bytes that the disk then holds."""
        code, text, modules = attempt(self.words, self.disk)
        for name in modules.split():  # for the forks to come
            with suppress(Exception):  # what could not be imported there, for any reason, is not needed here either
                importlib.import_module(name)
        if code:
            sys.exit(f"{self.name}: the undisturbed run ended with {code}\n{text[-3000:]}")
        self.expected = contents(self.disk)
        assert self.expected, f"{self.name} wrote nothing into {self.disk}"
        return sum(max(4096, size) for size in (path.stat().st_size for path in self.disk.rglob("*")))

    def in_turn(self, limit: int) -> None:
        """Let the disk be full at each kind of file in turn."""
        empty(self.disk)
        met: set[str] = set()
        kind = "start"
        while kind:
            before = contents(self.disk)
            code, text, kind = attempt(self.words, self.disk, met, limit)
            self.runs += 1
            if code == 0:  # what was left to write was small enough
                return self.compare(f"in turn, {limit} bytes")
            self.check(f"at {kind}, {limit} bytes", code, text, before)
            met.add(kind)

    def growing(self, used: int) -> None:
        """Let the disk grow in steps until the program has room."""
        empty(self.disk)
        for step in range(1, STEPS + 1):
            mount(self.disk, used * step // STEPS, "remount")
            before = contents(self.disk)
            code, text, _ = attempt(self.words, self.disk)
            self.runs += 1
            if code == 0:
                break
            self.check(f"with {used * step // STEPS} bytes", code, text, before)
        mount(self.disk, 2**32, "remount")
        if code:
            code, text, _ = attempt(self.words, self.disk)
            if code:
                self.problems.append(f"{self.name}, with room again: code {code}: {text[-1500:]}")
        self.compare("on a growing disk")

    def check(self, when: str, code: int, text: str, before: Mapping[str, bytes]) -> None:
        """Note what is wrong after a run that ended for want of room."""
        self.hit += 1
        found, now = SAYS.search(text), contents(self.disk)
        wrong = [] if code == 1 and found and "Traceback" not in text else [f"code {code}: {text[-1500:]}"]
        if found and not found[1].startswith(str(self.disk)):
            wrong.append(f"{found[1]} is named, which is not on the disk")
        wrong += [f"{name} is cut off" for name, data in now.items() if not LEFTOVER.search(name) and cut(name, data)]
        done = [name for name, data in before.items() if self.expected.get(name) == data]
        wrong += [f"{name} was finished and is lost" for name in done if now.get(name) != self.expected[name]]
        self.problems += [f"{self.name} {when}: {one}" for one in wrong]

    def compare(self, when: str) -> None:
        """Compare what the program ended in."""
        found = contents(self.disk)
        for name in sorted({*found, *self.expected}):
            old, new = (held.get(name, b"no such file") for held in (self.expected, found))
            if old != new:
                at = max(len(os.path.commonprefix([old, new])) - 30, 0)
                what = f"{old[at : at + 99]!r} became {new[at : at + 99]!r}"
                self.problems.append(f"{self.name} {when}: {name} is not the same: {what}")


def attempt(words: Sequence[str], disk: Path, met: set[str] | None = None, limit: int = 0) -> tuple[int, str, str]:
    """Run a program; with `met`, the disk is full from the first kind of file on that is not in it.

    Returns its exit code, its output, and that kind of file; without `met`, the modules that it imported, one a line.
    """
    reads, writes = os.pipe()
    notes = os.memfd_create("notes")
    child = fork(words, writes, lambda: _note_imports(notes) if met is None else _fill(disk, met, limit, notes))
    os.close(writes)
    with os.fdopen(reads, errors="replace") as output:
        text = output.read()
    _, status = os.waitpid(child, 0)
    with os.fdopen(notes) as note:
        note.seek(0)
        return os.waitstatus_to_exitcode(status), text, note.read()


def _note_imports(notes: int) -> None:
    """Note every module that is imported from now on."""
    sys.addaudithook(lambda event, args: os.write(notes, f"{args[0]}\n".encode()) if event == "import" else None)


def _fill(disk: Path, met: set[str], limit: int, notes: int) -> None:
    """From now on, opening a file of a new kind for writing, or making a folder of a new kind, fills the disk."""
    full: list[str] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if full or not (event == "os.mkdir" or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR))):
            return
        if not isinstance(args[0], str | bytes | os.PathLike):
            return
        kind = kind_of(os.path.join(os.getcwd(), os.fsdecode(args[0])), disk)
        if kind is not None and kind not in met:
            full.append(kind)
            os.write(notes, kind.encode())
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    sys.addaudithook(hook)


def kind_of(path: str, disk: Path) -> str | None:
    """Return a path on the disk without what tells files of one kind apart; None for other paths."""
    if not path.startswith(f"{disk}/"):
        return None
    name = re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", os.path.relpath(path, disk))
    folder, suffix = os.path.split(name)[0], os.path.splitext(name)[1]
    return f"{folder}/*{suffix}" if suffix in (".png", ".jpg", ".part") else name


def contents(disk: Path) -> dict[str, bytes]:
    """Return every file by its path, without times."""
    found = {path.relative_to(disk).as_posix(): path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    return {
        name: VOLATILE.sub("", data.decode()).encode() if name.endswith((".json", ".jsonl", ".html", ".md")) else data
        for name, data in found.items()
        if data or not name.endswith("lock")
    }


def cut(name: str, data: bytes) -> bool:
    """Whether a file ends before its end."""
    if name.endswith((".json", ".jsonl")):
        return (
            not (name.endswith("l") and not data)
            and not data.strip().isdigit()
            and not data.strip().endswith((b"}", b"]"))
        )
    if name.endswith(".safetensors"):
        head = int.from_bytes(data[:8], "little")
        if len(data) < 8 + head:
            return True
        ends = [one["data_offsets"][1] for key, one in json.loads(data[8 : 8 + head]).items() if key != "__metadata__"]
        return len(data) != 8 + head + max(ends)
    ends = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".html": b"</html>", ".parquet": b"PAR1"}
    return not data.rstrip(b"\n").endswith(ends.get(os.path.splitext(name)[1], b""))


def empty(folder: Path) -> None:
    """Remove what a folder holds."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def mount(folder: Path, size: int, *how: str) -> bool:
    """Mount a tmpfs of so many bytes, or change its size; False where that is not permitted."""
    options = ",".join([*how, f"size={max(size, 4096)}"])
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def disturb(names: Sequence[str], limits: Sequence[int], folder: Path, say: Callable[[str], None]) -> list[str]:
    """Put every program on a full disk; return what is wrong."""
    from tests.support.disk_programs import programs

    problems, disk = [], folder / "disk"
    disk.mkdir(parents=True)
    mounted = mount(disk, 2**32)
    try:
        for name, words in programs(folder / "inputs", disk / "out", names).items():
            begun, trial = time.monotonic(), Trial(name, words, disk)
            used = trial.whole()
            for limit in limits:
                trial.in_turn(limit)
            if mounted:
                trial.growing(used)
            empty(disk)
            if not trial.hit:
                trial.problems.append(f"{name}: no disk was ever full")
            verdict = "ok" if not trial.problems else f"{len(trial.problems)} PROBLEMS"
            say(f"{name}: full {trial.hit} times in {trial.runs} runs, {time.monotonic() - begun:.0f} s: {verdict}")
            problems += trial.problems
            for problem in trial.problems:
                say(f"  {problem}")
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
    return problems


def main() -> None:
    """Put programs on full disks; one line at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="names of programs; default: all")
    parser.add_argument("--limits", nargs="+", type=int, default=[0, 3000], help="bytes that still fit into a file")
    options, begun = parser.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fieldmark-full-") as folder:
        problems = disturb(options.only, options.limits, Path(folder), lambda line: print(line, flush=True))
    minutes, verdict = (time.monotonic() - begun) / 60, f"{len(problems)} PROBLEMS" if problems else "nothing lost"
    print(f"full disk: {minutes:.1f} minutes: {verdict}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
