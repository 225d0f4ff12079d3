"""The task pages work to the letter: their files are written, their commands run, in a copy of the tree.

What the machine of the tests lacks (a GPU, weights from the hub, a day) is replaced by what the page itself says under
`text swap`, and by nothing else.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, blocks_of, lines_of, swaps_of

TASKS = ROOT / "docs" / "tasks"
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "runs", "build", "dist", "__pycache__", ".*_cache", "*.egg-info")


def follow(page: Path, folder: Path, swaps: list[tuple[str, str]] | None = None) -> Path:
    """Do what a page says in a copy of the tree under `folder`, and return the copy.

    A block that holds a file is written, and one that is to be run is run, in the order of the page.
    """
    copy = folder / "fieldmark"
    shutil.copytree(ROOT, copy, ignore=LEFT_BEHIND)
    told = swaps_of(page) if swaps is None else swaps
    lines = lines_of(page)
    for block in blocks_of(page):
        if block.file:
            (copy / block.file).parent.mkdir(parents=True, exist_ok=True)
            (copy / block.file).write_text(block.text, encoding="utf-8")
        last = block.number + block.text.count("\n")
        for line in lines if "run" in block.words else ():
            if block.number < line.number <= last:
                start(swapped(shlex.join(line.words), told), copy, str(line))
    return copy


def swapped(command: str, swaps: list[tuple[str, str]]) -> list[str]:
    """Replace what the page says is replaced."""
    for before, after in swaps:
        command = command.replace(before, after)
    return shlex.split(command)


def start(words: list[str], copy: Path, what: str) -> None:
    """Run one command in the copy, as a person would in an activated environment."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**ours, "PATH": path, "PYTHONPATH": str(copy), "FIELDMARK_CACHE": str(copy / "runs" / "cache")}
    done = subprocess.run(
        words, cwd=copy, env=environment, capture_output=True, text=True, timeout=1200, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{what}\n{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-4000:]}"


@pytest.mark.ci
def test_one_file_adds_one_thing(tmp_path: Path) -> None:
    copy = follow(TASKS / "one_file.md", tmp_path)
    assert (copy / "runs/trial/pointing/scores.json").is_file()


@pytest.mark.ci
def test_what_one_file_adds_is_well_made(tmp_path: Path) -> None:
    """The examples are held to the house's own rules."""
    pytest.importorskip("ruff", reason="ruff is not installed")
    for block in blocks_of(TASKS / "one_file.md"):
        if block.file:
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--config", str(ROOT / "pyproject.toml"), str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
