"""What a wheel installs: one top-level name, the weights and recipes inside it, and commands that run from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

ROOT = Path(__file__).resolve().parents[1]
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")


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


def run(*command: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL
    )


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


def test_the_library_comes_from_the_wheel_and_loads_no_torch(installed: Path, tmp_path: Path) -> None:
    code = "import sys, mllm; print(mllm.__file__); print(mllm.__version__); print('torch' in sys.modules)"
    done = run(sys.executable, "-c", code, site=installed, cwd=tmp_path)
    file, version, torch = done.stdout.split()
    assert Path(file).is_relative_to(installed)
    assert version and torch == "False"


def test_the_command_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    done = run(str(installed / "bin" / "fieldmark"), "--help", site=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "chat" in done.stdout


@pytest.mark.parametrize("program", ["data_synth.grounding", "recipes.sft", "recipes.rl", "eval.kvg_bench"])
def test_the_programs_run_from_another_folder(installed: Path, tmp_path: Path, program: str) -> None:
    done = run(sys.executable, "-m", f"mllm.{program}", "--help", site=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout) > 300 and "--" in done.stdout


def test_a_base_model_travels_along(installed: Path, tmp_path: Path) -> None:
    """The committed pocket base must be found inside the installed package."""
    code = "from mllm.pocket.model import weights_folder; print(weights_folder())"
    done = run(sys.executable, "-c", code, site=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(done.stdout.strip()).is_relative_to(installed)
