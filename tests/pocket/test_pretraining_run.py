"""Pre-training in several processes: their mean gradient is that of one process which reads everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mllm.pocket.pretraining_run import SavedState

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.ci
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for name, start in (("one", [sys.executable]), ("two", TORCHRUN)):
        ended = run(
            *start, "-m" if start is not TORCHRUN else "--module", "tests.pocket.averaging", str(tmp_path / name)
        )
        assert ended.returncode == 0, ended.stderr
        found.append(torch.load(tmp_path / name, weights_only=True))
    one, two = found
    assert (two["gradient"] - one["gradient"]).norm() <= 1e-4 * one["gradient"].norm()
    assert one["beside"] == [[1.0, 1.0], [8.0, 8.0], None]
    assert two["beside"] == [[1.5, 1.5], [4.0, 4.0], None], "a mean over processes, absent ones counted as zero"
    assert (one["threads"], two["threads"]) == ((1, 1), (2, 1)), "who works alone has everybody's threads"


@pytest.mark.slow
def test_the_program_runs_in_two_processes_and_goes_on_in_one(tmp_path: Path) -> None:
    flags = ["recipes/pretrain.py", "--scenes", "40", "--batch-size", "4", "--text-batch-size", "4", "--checks", "2"]
    flags += ["--warmup-steps", "2", "--save-every", "1", "--out", str(tmp_path)]
    ended = run(*TORCHRUN, *flags, "--steps", "1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("weights in") == 1, "only the first process checks and writes"
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3
    alone = run(sys.executable, *flags, "--steps", "2")
    assert alone.returncode == 0 and "resuming at step 3" in alone.stderr
    refused = run(*TORCHRUN, *flags, "--batch-size", "3")
    assert refused.returncode != 0 and "2 processes need at least --batch-size 4 and" in refused.stderr


def test_a_state_that_was_read_is_written_to_the_same_bytes(tmp_path: Path) -> None:
    def parts() -> dict[str, Any]:
        model = torch.nn.Linear(2, 2)
        return {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}

    first = SavedState(tmp_path / "state.pt", parts(), {"seed": 1})
    first.parts["model"](torch.ones(1, 2)).sum().backward()
    first.parts["optimizer"].step()
    first.step = 1
    first.save()
    written = first.file.read_bytes()
    again = SavedState(first.file, parts(), {"seed": 1})
    again.save()
    assert again.step == 1 and again.file.read_bytes() == written
