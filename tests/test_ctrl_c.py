"""Ctrl-C ends every program with one line and code 130: in its imports, at work, while it saves and while it ends."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from mllm import ctrl_c
from mllm.errors import STOPPED

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = [path for folder in ("data_synth", "eval", "recipes") for path in sorted((ROOT / folder).glob("[!_]*.py"))]
COMMANDS = {path.relative_to(ROOT).as_posix(): (str(path),) for path in PROGRAMS} | {
    "python -m": ("-m", "eval.naming"),
    "python -m mllm.cli": ("-m", "mllm.cli", "doctor"),
    "fieldmark": ("-c", "from mllm.cli.__main__ import main\nmain()", "doctor"),
}
SLOW_LIBRARIES = ("numpy", "PIL", "pydantic", "rich", "scipy", "torch", "transformers", "trl", "tyro", "yaml")
ENDLESS = """import time
print("importing", flush=True)
while True:
    try:
        time.sleep(0.5)  # a signal that comes just before a sleep is seen at its end only
    except BaseException:
        pass  # some libraries do that, too
"""
FIRST = """if __name__ == '__main__':
    from mllm import ctrl_c
    ctrl_c.end_at_once()"""
LAST = tuple(f"if __name__ == '__main__':\n    {call}(main)" for call in ("run_program", "run.program"))


def start(*command: str, **environment: str) -> subprocess.Popen[str]:
    """Start Python in a group of its own, as a terminal does. In a job in the background, it would ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def press(child: subprocess.Popen[str]) -> None:
    """Press Ctrl-C: the terminal sends the signal to the program and to the processes that it started."""
    os.killpg(child.pid, signal.SIGINT)


def wait_for(line: str, output: IO[str] | None) -> None:
    assert output is not None and output.readline() == f"{line}\n"


def ended(child: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a stopped program printed besides what was read; it ends as every program does.

    It waits for the end of both streams, and so for the end of all processes that the program started.
    """
    printed, said = child.communicate(timeout=60)
    assert child.returncode == 130 and "Traceback" not in said, said[-3000:]
    return printed, said


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_program_takes_ctrl_c_before_its_imports(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    statements = [ast.unparse(node) for node in body if not (isinstance(node, ast.Expr) and node is body[0])]
    assert [one for one in statements if not one.startswith("from __future__")][0] == FIRST
    assert statements[-1] in LAST


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which the import of every slow library lasts for ever and swallows exceptions."""
    folder = tmp_path_factory.mktemp("endless")
    for name in SLOW_LIBRARIES:
        (folder / f"{name}.py").write_text(ENDLESS)
    return os.pathsep.join([str(folder), str(ROOT)])


@pytest.mark.ci
@pytest.mark.parametrize("name", COMMANDS)
def test_in_the_imports_of_every_program(name: str, endless: str) -> None:
    child = start(*COMMANDS[name], PYTHONPATH=endless)
    wait_for("importing", child.stdout)
    press(child)
    assert ended(child) == ("", f"{STOPPED}\n")


def test_one_process_of_a_launch_speaks(endless: str) -> None:
    child = start(str(ROOT / "recipes" / "sft.py"), PYTHONPATH=endless, RANK="1", WORLD_SIZE="2")
    wait_for("importing", child.stdout)
    press(child)
    assert ended(child) == ("", "")


def test_at_work(tmp_path: Path) -> None:
    child = start("data_synth/grounding.py", "--out", str(tmp_path / "data"))
    while not (tmp_path / "data").is_dir():
        assert child.poll() is None
        time.sleep(0.02)
    press(child)
    assert ended(child)[1].endswith(f"{STOPPED}\n")
    assert not (tmp_path / "data" / "manifest.json").exists()


BEGINNING = """import atexit, os, time
from mllm import ctrl_c
ctrl_c.end_at_once()
from mllm.cli.programs import run_program

def wait(word):
    os.write(1, f"{word}\\n".encode())
    time.sleep(600)

"""
SAVES = """def main():
    try:
        wait("working")
    except KeyboardInterrupt:
        wait("saving")
"""
ENDS = """def main():
    atexit.register(wait, "ending")
    wait("working")
"""
RETURNS = """def main():
    atexit.register(wait, "ending")
    print("result")
"""


def test_twice_while_it_saves() -> None:
    child = start("-c", BEGINNING + SAVES + "run_program(main)")
    for word in ("working", "saving"):
        wait_for(word, child.stdout)
        press(child)
    assert ended(child) == ("", f"{STOPPED}\n")


def test_twice_while_it_ends() -> None:
    child = start("-c", BEGINNING + ENDS + "run_program(main)")
    for word in ("working", "ending"):
        wait_for(word, child.stdout)
        press(child)
    assert ended(child) == ("", f"{STOPPED}\n" * 2)


def test_after_the_work_nothing_printed_is_lost() -> None:
    child = start("-c", BEGINNING + RETURNS + "run_program(main)", PYTHONUNBUFFERED="")
    for line in ("result", "ending"):
        wait_for(line, child.stdout)
    press(child)
    assert ended(child) == ("", f"{STOPPED}\n")


DRAWING = """import sys
from pathlib import Path
from mllm import ctrl_c
from mllm.cli.programs import run_program

if __name__ == "__main__":
    ctrl_c.end_at_once()

from mllm.pocket.scene_store import SceneStore

if __name__ == "__main__":
    run_program(lambda: SceneStore(Path(sys.argv[1]), 10**5, workers=2) and None)
else:
    Path(sys.argv[1], "worker").touch()
"""


@pytest.mark.ci
def test_workers_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "drawing.py").write_text(DRAWING)
    child = start(str(tmp_path / "drawing.py"), str(tmp_path))
    while not (tmp_path / "worker").is_file():
        assert child.poll() is None
        time.sleep(0.02)
    press(child)
    assert ended(child)[1].endswith(f"{STOPPED}\n")


def test_it_stays_ignored_in_the_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ctrl_c.end_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert ctrl_c.run(lambda: signal.getsignal(signal.SIGINT)) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_waits_while_children_start() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    begun = False
    try:
        with pytest.raises(KeyboardInterrupt), ctrl_c.kept_from_children():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            begun = True
        assert begun and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_raises_only_in_the_work() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert ctrl_c.run(lambda: signal.getsignal(signal.SIGINT)) is signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ctrl_c.end_at_once()
        assert signal.getsignal(signal.SIGINT) is ctrl_c._end
        assert ctrl_c.run(lambda: signal.getsignal(signal.SIGINT)) is signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is ctrl_c._end
    finally:
        signal.signal(signal.SIGINT, before)
