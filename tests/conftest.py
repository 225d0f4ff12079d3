"""Fixtures for all tests: no network, the folder of real photos, folders that are made once for all workers."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports a Hugging Face library; the commands that tests start inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"
os.environ["MPLBACKEND"] = "Agg"
# The models are too small for a second thread to help, and test workers would fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No time limit for a single example: the first one may import torch, and test machines are busy.
# In continuous integration the same examples every time, so that what fails there can be looked at; elsewhere new ones.
# Forty examples a property: `make fuzz` tries many more where parsers are concerned.
settings.register_profile("fieldmark", deadline=None, max_examples=40, derandomize=os.environ.get("CI") == "true")
settings.load_profile("fieldmark")

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = ("127.", "::1", "localhost", "::ffff:127.")


class NetworkBlocked(RuntimeError):
    """A test reached for the network; the suite must pass on a machine without one."""


def _guarded(name: str) -> Callable[..., object]:
    original = getattr(socket.socket, name)

    def connect(self: socket.socket, address: object, *rest: object) -> object:
        is_internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if is_internet and isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise NetworkBlocked(f"a test tried to reach {address[0]}:{address[1]}; tests run offline")
        return original(self, address, *rest)

    return connect


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Iterator[None]:
    """Refuse every connection that leaves this machine (two-process runs talk over loopback, which stays open)."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(name))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and annotations: $FIELDMARK_TEST_DATA or `../shared/data`; skips where it is absent."""
    folder = Path(os.environ.get("FIELDMARK_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder} (set FIELDMARK_TEST_DATA)")
    return folder


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Make a folder once for the whole session: `made_once("birds", make)` calls `make(folder)` at most once.

    Workers of xdist share the folder: the first one makes it, the others wait. Read it, never write in it.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    root.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, finished = root / name, root / f"{name}.finished"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                finished.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def pocket_folder(made_once: MadeOnce) -> Path:
    """A pocket checkpoint with random weights: loads like any other, knows nothing."""
    from mllm.pocket.model import build, save

    return made_once("pocket-random", lambda folder: save(*build(seed=0), folder))


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command as a user would: `run("eval/kvg_bench.py", "--help")` starts Python at the root.

    `cwd`, `timeout` (seconds) and `env` (added to ours) may be given; `check=True` fails the test, with the output, on
    a non-zero exit. Gives back the exit status and what was written.
    """

    def start(
        *command: str, cwd: Path = ROOT, timeout: float = 120, env: dict[str, str] | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            pytest.fail(
                f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            )
        return done

    return start
