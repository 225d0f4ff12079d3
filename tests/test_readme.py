"""Commands on every page exist and take the flags they are shown with; README's `quick` ones run; packages are named.

Read are the fenced blocks of language bash. A block opened with ```` ```bash quick ```` is also executed, line after
line, in a copy of the tree, under the `slow` marker. The task pages have a test of their own, tests/test_tasks.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import (
    PAGES,
    ROOT,
    Line,
    flags_of,
    lines_of,
    made_on,
    module_of,
    name_of,
    program_of,
    sub_command,
)

OTHERS = {
    "git",
    "cd",
    "export",
    "source",
    "pip",
    "python3.11",
    ".venv/bin/pre-commit",
    "cat",
    "ls",
    "env",
    "hf",
    "vllm",
}
LINES = [line for page in PAGES if page.is_file() for line in lines_of(page)]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OURS = ("mllm.", "recipes.", "eval.", "data_synth.", "bench.")


def read_by_the_recipe(program: str, rest: tuple[str, ...]) -> None:
    """Let a recipe's own reader take the flags (TRL's several hundred are no part of its help), on the CPU."""
    import trl

    from mllm.training import arguments

    yaml = (ROOT / program).with_suffix(".yaml")
    config = trl.SFTConfig if program == "recipes/sft.py" else trl.GRPOConfig
    arguments.read([*rest, "--bf16", "False", "--use_cpu", "True"], yaml, config)


def test_there_is_something_to_test() -> None:
    assert len(LINES) > 12
    assert any("quick" in line.block for line in LINES)
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
        files = (f"{module}.py", f"{module}/__main__.py")
        known = any((ROOT / file).is_file() for file in files) or program[1] in ("pytest", "accelerate.commands.launch")
        assert known, f"{line}: no module {program[1]}"
    else:
        is_there = (ROOT / program[0]).is_file() or program[0] in made_on(line.page)
        assert is_there, f"{line}: no file {program[0]}"
    for word in words:
        if word.endswith(".yaml") and word.startswith(("recipes/", "accelerate")):
            assert (ROOT / word).is_file(), f"{line}: no file {word}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_readme_has_a_line_for_every_package() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## What is where")[1]
    named = set(re.findall(r"`([\w/]+)/`", table))
    packages = {f"mllm/{init.parent.name}" for init in (ROOT / "mllm").glob("*/__init__.py")}
    programs = {init.parent.name for init in ROOT.glob("*/__init__.py")} - {"mllm"}
    assert packages <= named, f"no line for {sorted(packages - named)}"
    assert programs <= named, f"no line for {sorted(programs - named)}"
    assert all((ROOT / name).is_dir() for name in named), f"gone: {[n for n in named if not (ROOT / n).is_dir()]}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("line", [line for line in LINES if program_of(line.words)], ids=str)
def test_its_flags_are_accepted(line: Line, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    started = program_of(line.words)
    assert started is not None
    program, rest = started
    module = module_of(program)
    if not module.startswith(OURS) or program[0] in made_on(line.page):
        return
    if program[0] in ("recipes/sft.py", "recipes/rl.py"):
        read_by_the_recipe(program[0], rest)
        return
    known = flags_of(module, *sub_command(program, rest))
    ours = rest[: rest.index("--")] if "--" in rest else rest
    wrong = {word.split("=")[0] for word in ours if word.startswith("--")} - known
    assert not wrong, f"{line}: {module} has no flag {sorted(wrong)}"


@pytest.mark.slow
def test_the_quick_commands_run(tmp_path: Path) -> None:
    copy = tmp_path / "fieldmark"
    left_behind = shutil.ignore_patterns(".git", ".venv*", "runs", "build", "dist", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=left_behind)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in LINES:
        if "quick" in line.block and line.words[0] != "make":
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
