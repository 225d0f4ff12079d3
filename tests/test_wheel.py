"""What a wheel installs: one top-level name, the weights and recipes inside it, and commands that run from anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

ROOT = Path(__file__).resolve().parents[1]
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv*", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree (a build writes into it) with the setuptools that is installed."""
    copy = tmp_path_factory.mktemp("tree") / "fieldmark"
    shutil.copytree(ROOT, copy, ignore=LEFT_BEHIND)
    out = copy / "dist"
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(out),
        str(copy),
    ]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (path,) = out.glob("fieldmark-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=300, stdin=subprocess.DEVNULL)
    return target


def run(*command: str, site: Path, cwd: Path) -> str:
    """Run a command with the installed wheel on the path, from another folder; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def test_the_only_top_level_name_is_mllm(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (top,) = [n for n in names if n.endswith("top_level.txt")]
        assert archive.read(top).decode().split() == ["mllm"]
    assert {n.split("/")[0] for n in names if ".dist-info/" not in n} == {"mllm"}
    assert not [n for n in names if "__pycache__" in n or "/tests/" in n]


def test_programs_recipes_weights_and_types_are_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "mllm/py.typed" in names
    for folder in ("recipes", "data_synth", "eval"):
        wanted = [p for p in (ROOT / folder).glob("*") if p.suffix in (".py", ".yaml")]
        assert wanted
        assert not {f"mllm/{folder}/{p.name}" for p in wanted} - names
    for path in (ROOT / "mllm").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in names, "a file of the library is missing from the wheel"


STARTED = """
import json, os, runpy, sys
import mllm
facts = {"file": mllm.__file__, "version": mllm.__version__, "torch": "torch" in sys.modules}
from mllm.models.builtin import weights_folder
facts["weights"] = str(weights_folder())
from mllm.knowledge import domains
facts["domains"] = domains.names()
print(json.dumps(facts))
for name in sys.argv[1:]:
    print("====", name, flush=True)
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print("----", code, flush=True)
"""
"""Start every program with --help, one after the other: torch is imported once for all of them."""
PROGRAMS = ["mllm.data_synth.grounding", "mllm.recipes.sft", "mllm.recipes.rl", "mllm.eval.kvg_bench"]


def test_library_weights_and_programs_work_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """Library and base model come from the wheel, `import mllm` loads no torch, the programs of each kind start."""
    first, *texts = run(sys.executable, "-c", STARTED, *PROGRAMS, site=installed, cwd=tmp_path).split("==== ")
    facts = json.loads(first)
    assert Path(facts["file"]).is_relative_to(installed) and Path(facts["weights"]).is_relative_to(installed)
    assert facts["version"] and facts["torch"] is False
    assert facts["domains"] == sorted(file.stem for file in (ROOT / "mllm/knowledge/domains").glob("*.yaml")) != []
    assert [text.split(maxsplit=1)[0] for text in texts] == PROGRAMS
    for text in texts:
        assert len(text) > 300 and "--" in text and text.rstrip().endswith("---- 0"), text[-3000:]


def test_the_command_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    assert "chat" in run(str(installed / "bin" / "fieldmark"), "--help", site=installed, cwd=tmp_path)
