"""Markdown pages as tests read them: fenced blocks, the commands in them, and what programs take.

The word after a block's language says what it is: `bash run` is executed by a test, `bash quick` too; `yaml recipe` is
a whole configuration, `yaml fieldmark` the inside of its `fieldmark:` section, `yaml cards`, `yaml domain` and `yaml
teacher` are such files; `file=PATH` is a file that the page asks its reader to write; `text swap` lists what the test
puts in place of what (`from -> to`, a line each), because no GPU and no hub is at hand.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LAUNCHERS = ("accelerate", ".venv/bin/accelerate")
PYTHONS = ("python", ".venv/bin/python")
COMMANDS = ("fieldmark", ".venv/bin/fieldmark")


@dataclass(frozen=True)
class Block:
    """One fenced block: where its fence stands, its language, the words behind it, and its text, not indented."""

    page: Path
    number: int
    language: str
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.number}"

    @property
    def file(self) -> str | None:
        """The file that the reader is asked to write."""
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)


@dataclass(frozen=True)
class Line:
    """One command of a page, with where it stands and the words behind its block's language."""

    page: str
    number: int
    words: tuple[str, ...]
    block: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.number} {' '.join(self.words)}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT / "docs" if page.is_relative_to(ROOT / "docs") else ROOT).as_posix()


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    opened: tuple[int, list[str]] | None = None
    held: list[str] = []
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not text.lstrip().startswith("```"):
            held.append(text)
            continue
        if opened is None:
            opened, held = (number, text.strip().strip("`").split()), []
            continue
        at, (language, *words) = opened[0], opened[1] or ["text"]
        found.append(Block(page, at, language, tuple(words), dedent("\n".join(held) + "\n")))
        opened = None
    assert opened is None, f"{name_of(page)}:{opened[0] if opened else 0}: a block is not closed"
    return tuple(found)


@cache
def made_on(name: str) -> frozenset[str]:
    """The files that the page of this name asks its reader to write."""
    pages = [page for page in PAGES if name_of(page) == name]
    return frozenset(block.file for page in pages for block in blocks_of(page) if block.file)


def prose_of(page: Path) -> Iterator[tuple[int, str]]:
    """Number and text of the lines outside blocks."""
    inside = False
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if text.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            yield number, text


def lines_of(page: Path) -> list[Line]:
    """The commands of the bash blocks, without comments and variables; lines that end in a backslash are joined."""
    found: list[Line] = []
    for block in blocks_of(page):
        if block.language != "bash":
            continue
        held, start = "", 0
        for number, text in enumerate(block.text.splitlines(), block.number + 1):
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
                found.append(Line(name_of(page), start, tuple(words), block.words))
    return found


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


def module_of(program: tuple[str, ...]) -> str:
    """The module behind `program_of`'s first part."""
    return program[1] if program[0] == "-m" else program[0].removesuffix(".py").replace("/", ".")


@cache
def help_of(module: str, *sub: str) -> str:
    """What a program prints for `--help`, wide enough that no flag is broken. It runs in this process."""
    program = import_module("mllm.cli.__main__" if module == "mllm.cli" else module)
    printed = io.StringIO()
    with (
        mock.patch.dict("os.environ", {"COLUMNS": "250", "NO_COLOR": "1", "TERM": "dumb"}),
        mock.patch("mllm.ctrl_c.end_at_once"),  # Ctrl-C stays with pytest
        mock.patch.object(sys, "argv", [module, *sub, "--help"]),
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        try:
            program.main()
        except SystemExit as end:
            assert not end.code, f"{module} {' '.join(sub)} --help ended with {end.code}\n{printed.getvalue()[-3000:]}"
    return printed.getvalue()


def flags_of(module: str, *sub: str) -> frozenset[str]:
    """The flags in a program's help, and those that every program has."""
    return frozenset(re.findall(r"(?<![\w-])--[a-z][\w-]*(?:\.[\w.]+)?", help_of(module, *sub))) | {"--version"}


def sub_command(program: tuple[str, ...], rest: tuple[str, ...]) -> tuple[str, ...]:
    """The sub-command, where the first argument is one."""
    is_one = rest and not rest[0].startswith("-") and (program == ("-m", "mllm.cli") or rest[0] == "compare")
    return (rest[0],) if is_one else ()


def swaps_of(page: Path) -> list[tuple[str, str]]:
    """What a page's test puts in place of what."""
    pairs = []
    for block in blocks_of(page):
        if block.language == "text" and "swap" in block.words:
            for line in block.text.splitlines():
                before, arrow, after = line.partition(" -> ")
                assert arrow, f"{block}: {line!r}: write `from -> to`"
                pairs.append((before.strip(), after.strip()))
    return pairs
