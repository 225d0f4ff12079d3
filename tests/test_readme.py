"""The README's commands exist, take the flags they are shown with, and those marked `quick` run.

Read are its fenced blocks of language bash. A block opened with ```` ```bash quick ```` is also executed, line after
line, in a copy of the tree, under the `slow` marker.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = {"git", "cd", "export", "source", "pip", "python3.11", ".venv/bin/pre-commit", "cat", "ls"}
LAUNCHERS = ("accelerate", ".venv/bin/accelerate")
PYTHONS = ("python", ".venv/bin/python")
COMMANDS = ("fieldmark", ".venv/bin/fieldmark")


@dataclass(frozen=True)
class Line:
    """One command of a page, with where it stands and whether it is quick."""

    page: str
    number: int
    words: tuple[str, ...]
    quick: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.number} {' '.join(self.words)}"


def lines_of(page: Path) -> list[Line]:
    """The commands of the bash blocks, without comments and variables; lines that end in a backslash are joined."""
    found: list[Line] = []
    language, held, start = "", "", 0
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if text.lstrip().startswith("```"):
            language = "" if language else text.strip().strip("`").strip() or "text"
            continue
        if language.split()[:1] != ["bash"]:
            continue
        start = start if held else number
        held += text
        if held.endswith("\\"):
            held = held[:-1] + " "
            continue
        words = shlex.split(held, comments=True)
        held = ""
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            words.pop(0)
        if words:
            found.append(Line(page.name, start, tuple(words), "quick" in language.split()))
    return found


LINES = [line for page in PAGES if page.is_file() for line in lines_of(page)]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def program_of(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Split a command into what is started (the words after `python`) and its arguments; None for other commands."""
    if words[0] in COMMANDS:
        return ("-m", "mllm.cli"), words[1:]
    if words[0] in LAUNCHERS:
        assert words[1] == "launch"
        at = next((k for k, word in enumerate(words) if word.endswith(".py")), None)
        assert at is not None, f"accelerate launch without a program: {words}"
        return (words[at],), words[at + 1 :]
    if words[0] in PYTHONS and words[1] == "-m":
        return words[1:3], words[3:]
    if words[0] in PYTHONS and words[1].endswith(".py"):
        return words[1:2], words[2:]
    return None


@cache
def help_of(*command: str) -> str:
    """What `python COMMAND --help` prints, wide enough that no flag is broken."""
    environment = {**os.environ, "COLUMNS": "250", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{' '.join(command)} --help ended with {done.returncode}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def sub_command(program: tuple[str, ...], rest: tuple[str, ...]) -> tuple[str, ...]:
    """The program with its sub-command, where the first argument is one."""
    if rest and not rest[0].startswith("-") and (program == ("-m", "mllm.cli") or rest[0] == "compare"):
        return (*program, rest[0])
    return program


def read_by_the_recipe(program: str, rest: tuple[str, ...]) -> None:
    """Let a recipe's own reader take the flags (TRL's several hundred are no part of its help), on the CPU."""
    import trl

    from mllm.training import setup

    yaml = (ROOT / program).with_suffix(".yaml")
    config = trl.SFTConfig if program == "recipes/sft.py" else trl.GRPOConfig
    setup.read([*rest, "--bf16", "False", "--use_cpu", "True"], yaml, config)


def test_there_is_something_to_test() -> None:
    assert len(LINES) > 12
    assert any(line.quick for line in LINES)
    assert {line.words[1] for line in LINES if line.words[0] == "make"} >= {"demo", "test"}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_what_it_names_exists(line: Line) -> None:
    words = line.words
    if words[0] == "make":
        assert words[1] in TARGETS, f"the Makefile has no target {words[1]}"
        return
    started = program_of(words)
    if started is None:
        assert words[0] in OTHERS, f"{line}: what is {words[0]}?"
        return
    program, _ = started
    if program[0] == "-m":
        module = program[1].replace(".", "/")
        known = (ROOT / f"{module}.py").is_file() or program[1] in ("pytest", "accelerate.commands.launch")
        assert known, f"{line}: no module {program[1]}"
    else:
        assert (ROOT / program[0]).is_file(), f"{line}: no file {program[0]}"
    for word in words:
        if word.endswith(".yaml") and word.startswith(("recipes/", "accelerate")):
            assert (ROOT / word).is_file(), f"{line}: no file {word}"


@pytest.mark.parametrize("folder", ["mllm", "data_synth", "recipes", "eval", "accelerate_configs", "docs", "tests"])
def test_the_tree_in_the_readme_names_the_room(folder: str) -> None:
    assert re.search(rf"^\s*{folder}/", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_tree_in_the_readme_is_the_tree() -> None:
    """Every file of the library and of the programs has its phrase, and no phrase stands for a file that is gone."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("<!-- tree -->")[1]
    told = set(re.findall(r"[A-Za-z0-9_]+\.(?:py|yaml)\b", tree))
    real = {
        p.name
        for folder in ("data_synth", "recipes", "eval")
        for p in (ROOT / folder).iterdir()
        if p.suffix in (".py", ".yaml")
    }
    real |= {p.name for p in (ROOT / "mllm").rglob("*") if p.suffix in (".py", ".yaml")} - {"__init__.py"}
    real.discard("__init__.py")
    assert not real - told, f"the README's tree lacks {sorted(real - told)}"
    known = real | {p.name for p in ROOT.glob("*.yaml")} | {p.name for p in (ROOT / "accelerate_configs").iterdir()}
    assert not told - known, f"the README's tree tells of {sorted(told - known)}, which do not exist"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.ci
@pytest.mark.parametrize("line", [line for line in LINES if program_of(line.words)], ids=str)
def test_its_flags_are_accepted(line: Line) -> None:
    started = program_of(line.words)
    assert started is not None
    program, rest = started
    if program[0] == "-m" and not program[1].startswith(("mllm.", "recipes.", "eval.", "data_synth.")):
        return
    if program[0] in ("recipes/sft.py", "recipes/rl.py"):
        read_by_the_recipe(program[0], rest)
        return
    text = help_of(*sub_command(program, rest))
    for word in rest:
        if word.startswith("--"):
            flag = word.split("=")[0]
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), (
                f"{line}: {' '.join(program)} has no flag {flag}"
            )


@pytest.mark.slow
def test_the_quick_commands_run(tmp_path: Path) -> None:
    copy = tmp_path / "fieldmark"
    left_behind = shutil.ignore_patterns(".git", ".venv", "runs", "build", "dist", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=left_behind)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in LINES:
        if line.quick and line.words[0] != "make":
            environment = {**os.environ, "PATH": path, "PYTHONPATH": str(copy)}
            done = subprocess.run(
                line.words,
                cwd=copy,
                env=environment,
                capture_output=True,
                text=True,
                timeout=1200,
                stdin=subprocess.DEVNULL,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
