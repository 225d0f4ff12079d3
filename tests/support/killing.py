"""Data programs killed at chosen moments, and what they leave in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def killed_and_whole(program: str, flags: Sequence[str], moments: Mapping[str, int], folder: Path) -> tuple[Path, Path]:
    """Run a program of data_synth once undisturbed, and once killed with -9 as soon as each file of `moments` has more
    than so many bytes, then to its end. Returns both folders."""
    command = [sys.executable, str(ROOT / "data_synth" / program), *flags, "--out"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    whole, out = folder / "whole", folder / "killed"
    subprocess.run([*command, str(whole)], check=True, env=env, cwd=folder)
    for name, size in moments.items():
        running = subprocess.Popen([*command, str(out)], env=env, cwd=folder)
        while running.poll() is None:
            if (out / name).exists() and (out / name).stat().st_size > size:
                running.send_signal(signal.SIGKILL)
            time.sleep(0.002)
        assert running.wait() == -signal.SIGKILL, f"the run ended before {name} had grown"
        assert not (out / "manifest.json").exists()
    subprocess.run([*command, str(out)], check=True, env=env, cwd=folder)
    return out, whole


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder by its path in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
