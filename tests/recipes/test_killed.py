"""The kill test: `make kill` in brief, and one kill of a run that resamples."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.recipes import killed


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_runs_end_as_undisturbed_ones(run: Run, root: Path) -> None:
    env = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = run("tests/recipes/killed.py", "--kills", "20", timeout=3500, env=env, check=True)
    assert (
        "kill: 20 kills (sft 4 in " in done.stdout
        and "pretrain 4 in " in done.stdout
        and "all ended bit for bit as undisturbed runs" in done.stdout
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_resampling_goes_on_where_it_was(root: Path, tmp_path: Path) -> None:
    """Killed between two draws and resumed, a run draws the same prompts anew and ends bit for bit the same."""
    program, *flags = killed.recipes(tmp_path)["resample"]
    command = [sys.executable, str(root / "recipes" / f"{program}.py"), *flags, "--output_dir"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    whole, out = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, str(whole)], env=env, check=True, capture_output=True)
    running = subprocess.Popen([*command, str(out)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and not (out / "checkpoint-4" / "fieldmark.json").is_file():
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "the run ended before it was killed"
    subprocess.run([*command, str(out)], env=env, check=True, capture_output=True)
    resampled = {
        row["step"]: row["dynamic_sampling/resampled"]
        for row in map(json.loads, (out / "log.jsonl").read_text().splitlines())
        if "dynamic_sampling/resampled" in row
    }
    assert any(share > 0 for step, share in resampled.items() if step <= 4), "resampled before the kill"
    assert any(share > 0 for step, share in resampled.items() if step > 4), "and after it"
    assert killed.left(out) == killed.left(whole)
