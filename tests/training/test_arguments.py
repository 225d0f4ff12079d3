"""A run that would train in another way than its launcher was set to is refused."""

from __future__ import annotations

import pytest

from mllm.errors import ConfigError
from mllm.training import arguments


def test_processes_that_believe_they_are_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import PartialState

    PartialState(cpu=True)
    arguments.check_launch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were launched, but each one sees 1"):
        arguments.check_launch()


def test_deepspeed_is_not_quietly_plain_data_parallelism(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import PartialState

    PartialState(cpu=True)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="DeepSpeed was configured, but this would be NO: remove use_cpu"):
        arguments.check_launch()


def test_fsdp_of_one_process_is_not_quietly_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import PartialState

    PartialState(cpu=True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="FSDP was configured with one process"):
        arguments.check_launch()
