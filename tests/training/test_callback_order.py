"""The order of callbacks is made by one function, and another order is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerCallback

from mllm.config import Settings
from mllm.models import families
from mllm.training import run
from mllm.training.callback_order import ORDER, check_order, in_order
from mllm.training.callbacks import Completeness, Journal, OrderlyStop
from mllm.training.checkpointing import Boundaries, RunState
from mllm.training.dataset import Data
from mllm.training.health import HealthChecks
from mllm.training.live_page import LivePage, Rollouts


def test_a_run_gets_its_callbacks_in_order(tmp_path: Path) -> None:
    convention = families.Convention("pocket", "think", families.load("pocket").budget)
    checkpoint, card = SimpleNamespace(convention=convention), SimpleNamespace()
    prepared: Any = run.Prepared(checkpoint, Data([], [], tmp_path), None, card)  # pyright: ignore[reportArgumentType]
    trainer: Any = SimpleNamespace(args=SimpleNamespace(output_dir=str(tmp_path)))
    own = [OrderlyStop(), LivePage(trainer, tmp_path, Rollouts({})), HealthChecks()]
    made = run.training_callbacks(trainer, Settings(), prepared, own)
    kinds = [HealthChecks, Journal, LivePage, RunState, Completeness, OrderlyStop, Boundaries]
    assert [type(callback) for callback in made] == kinds
    check_order(made)
    boundaries = made[-1]
    assert isinstance(boundaries, Boundaries) and boundaries.trainer is trainer


@pytest.mark.parametrize(
    ("first", "second"),
    [(Journal(Path("x")), HealthChecks()), (Boundaries(None), OrderlyStop()), (RunState(), RunState())],
    ids=["journal before its numbers", "boundaries before a stop", "twice"],
)
def test_a_wrong_order_is_refused(first: TrainerCallback, second: TrainerCallback) -> None:
    with pytest.raises(ValueError, match=f"{type(first).__name__} must not run before {type(second).__name__}"):
        check_order([first, TrainerCallback(), second])
    if type(first) is not type(second):
        assert in_order([first, second]) == [second, first]
        check_order([second, TrainerCallback(), first])


def test_no_kind_is_listed_twice() -> None:
    assert len(set(ORDER)) == len(ORDER)


def test_a_name_of_run_state_is_used_once() -> None:
    state = RunState()
    state.register("bags", dict, print)
    with pytest.raises(ValueError, match="'bags' is registered twice"):
        state.register("bags", dict, print)
