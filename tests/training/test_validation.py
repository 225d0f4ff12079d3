"""A model in training answers. Two processes that really share it are in test_processes.py and test_sharded.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator

from mllm.inference.generate import generate
from mllm.inference.sampling import Sampling
from mllm.models.checkpoint import load
from mllm.training import validation
from tests.support.scenes import make_scene


def test_one_process_answers_as_the_model_does(pocket_folder: Path, tmp_path: Path) -> None:
    samples = [make_scene(tmp_path, number, "test") for number in range(3)]
    loaded = load(str(pocket_folder))
    args = SimpleNamespace(gradient_checkpointing_kwargs=None)
    trainer: Any = SimpleNamespace(model_wrapped=loaded.model.train(), accelerator=Accelerator(cpu=True), args=args)
    output = validation.answers(trainer, loaded, samples, tmp_path, sampling=Sampling(6), batch_size=2)
    alone = generate(load(str(pocket_folder)), samples, tmp_path, sampling=Sampling(6), batch_size=2)
    assert output == {one.sample_id: one for one in alone} and len(output) == 3


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_equally_long_hold_all_and_none_twice(count: int, world: int) -> None:
    samples: Any = list(range(count))
    shares = [validation.share(samples, rank, world) for rank in range(world)]
    assert len({len(one) for one in shares}) == 1
    assert {sample for one in shares for sample in one} == set(samples)
    assert all(len(set(one)) == len(one) for one in shares)
