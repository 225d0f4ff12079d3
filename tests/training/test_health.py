"""Health checks on made-up logs: each finds its own problem, names a setting, and finds nothing in a good run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mllm.boxes import Box
from mllm.config import Settings
from mllm.training.health import CHECKS, WINDOW, HealthChecks, box_spread

GOOD: dict[str, tuple[float, float]] = {
    "reward": (0.8, 1.2),
    "frac_reward_zero_std": (0.2, 0.1),
    "completions/clipped_ratio": (0.05, 0.02),
    "completions/mean_length": (120, 110),
    "rewards/format/mean": (0.6, 0.95),
    "rewards/iou/mean": (0.3, 0.5),
    "boxes/spread": (0.8, 0.9),
    "kl": (0.01, 0.08),
}
TROUBLE = {
    "zero_variance": ({"frac_reward_zero_std": (0.6, 0.8)}, "num_generations"),
    "truncated": ({"completions/clipped_ratio": (0.3, 0.6)}, "max_completion_length"),
    "format_without_iou": ({"rewards/iou/mean": (0.3, 0.29)}, "rewards.format.weight"),
    "length_collapse": ({"completions/mean_length": (200, 20)}, "loss_type"),
    "one_box": ({"boxes/spread": (0.2, 0.05)}, "temperature"),
    "kl_runaway": ({"kl": (0.1, 5.0)}, "beta"),
}


def logs(steps: int = WINDOW, **changed: tuple[float, float]) -> list[dict[str, Any]]:
    """Logs in which each number goes from its first to its last value."""
    ends = GOOD | changed
    return [{n: a + (b - a) * k / (steps - 1) for n, (a, b) in ends.items()} for k in range(steps)]


def run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    checks = HealthChecks()
    for step, row in enumerate(rows, 1):
        checks.on_log(None, SimpleNamespace(global_step=step, is_world_process_zero=True), None, logs=row)
    return rows


def test_a_good_run_has_no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    last = run(logs())[-1]
    assert {name: value for name, value in last.items() if name.startswith("alarm/")} == {
        f"alarm/{name}": 0.0 for name in CHECKS
    }
    assert not caplog.records


@pytest.mark.parametrize("name", sorted(TROUBLE))
def test_each_problem_has_its_own_check(name: str, caplog: pytest.LogCaptureFixture) -> None:
    changed, knob = TROUBLE[name]
    last = run(logs(**changed))[-1]
    assert {key for key, value in last.items() if key.startswith("alarm/") and value} == {f"alarm/{name}"}
    (record,) = caplog.records
    assert record.levelname == "WARNING" and knob in record.getMessage() and f"step {WINDOW}" in record.getMessage()


def test_every_check_is_tested_here() -> None:
    assert set(CHECKS) == set(TROUBLE)


def test_it_warns_once_and_again_after_a_good_window(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = logs(kl=(3.0, 30.0)), logs(kl=(0.01, 0.01))
    run([*logs(), *bad, *good, *logs(kl=(3.0, 30.0))])
    assert sum("runs away" in record.getMessage() for record in caplog.records) == 2


def test_what_is_not_logged_is_not_judged() -> None:
    rows = [{name: value for name, value in row.items() if name != "kl"} for row in logs()]
    assert "alarm/kl_runaway" not in run(rows)[-1]
    assert not any(name.startswith("alarm/") for row in run(logs()[: WINDOW - 1]) for name in row)
    assert run([{"loss": 1.0}] * 20)[-1] == {"loss": 1.0}, "a log without rewards is not a training step's"


def test_the_settings_that_checks_name_exist() -> None:
    assert {"dynamic_sampling", "rewards"} <= set(Settings.model_fields)


def test_spread_by_hand() -> None:
    """Two boxes whose left edges are 0.2 apart, all else equal: a deviation of 0.1 in one corner of four."""
    assert box_spread([Box(0.1, 0.1, 0.5, 0.5), Box(0.3, 0.1, 0.5, 0.5)]) == pytest.approx(0.025)
    assert box_spread([Box(0.1, 0.1, 0.5, 0.5)] * 5) == 0 and box_spread([]) == 0
