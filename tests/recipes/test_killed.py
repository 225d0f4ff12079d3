"""The kill test: `make kill` in brief."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_runs_end_as_undisturbed_ones(run: Run, root: Path) -> None:
    env = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = run("tests/recipes/killed.py", "--kills", "20", timeout=3500, env=env, check=True)
    assert "kill: 20 kills" in done.stdout and "all ended bit for bit as undisturbed runs" in done.stdout
