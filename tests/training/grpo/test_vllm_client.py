"""The comparison before the first step over TRL's own client and a server that speaks vLLM's language on loopback."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from mllm.errors import FieldmarkError
from mllm.models import checkpoint
from mllm.models.families import Budget
from mllm.training.dataset import Row
from mllm.training.grpo import vllm_check
from tests.support.scenes import described, make_scene
from tests.support.vllm_server import Engine, served
from tests.training.grpo.test_trainer import trainer

from trl.generation import vllm_client  # isort: skip
from trl.generation.vllm_generation import VLLMGeneration  # isort: skip

TEMPERATURE = 0.7


class Served(VLLMGeneration):
    """TRL's own, less what needs vLLM installed: the channel on which weights travel. The server has the weights."""

    def _init_vllm(self) -> None:
        self.vllm_client = vllm_client.VLLMClient(base_url=self.server_base_url)
        self.synced = 0

    def sync_weights(self) -> None:
        self.synced += 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("rollout")
    scenes = [described(make_scene(folder, k, "train", across=2, down=1)) for k in range(2)]
    rows = [Row(scene, folder / scene.image) for scene in scenes]
    return trainer(rows, Path(checkpoint.base_and_adapter("pocket")[0]), folder / "out", temperature=TEMPERATURE)


def check(made: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the check against a server; returns TRL's side of it."""
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda *_: True)
    torch.manual_seed(0)
    with served(engine) as address:
        made.vllm_generation = Served(
            model=made.model, accelerator=made.accelerator, processing_class=made.processing_class, mode="server",
            server_base_url=address, temperature=TEMPERATURE, top_k=0, max_completion_length=12, logprobs=0,
        )  # fmt: skip
        callback = vllm_check.RolloutCheck(made, made.train_dataset[0])
        callback.on_train_begin(made.args, made.state, made.control)
    return made.vllm_generation


def test_a_sound_server_is_trained_with(
    made: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = checkpoint.load("pocket")
    engine = Engine(loaded.model, loaded.processor)
    with caplog.at_level(logging.INFO):
        assert check(made, engine, monkeypatch).synced == 1
    assert "vLLM reads the same" in caplog.text
    assert engine.asked == ["/v1/chat/completions/render"] * 2 + ["/inference/v1/generate"]


def test_a_server_with_another_image_budget_is_noticed(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL writes the lengths of its own prompt over the server's, and says that as many tokens were read as it sent."""
    loaded = checkpoint.load("pocket")
    loaded.processor.image_processor.size = Budget(32 * 32, 2 * 32 * 32).size
    with pytest.raises(FieldmarkError, match=r"makes \[[0-9]+\] tokens of the images for which the prompt has"):
        check(made, Engine(loaded.model, loaded.processor), monkeypatch)


@pytest.mark.parametrize("wrong", ["image", "weights"])
def test_other_log_probabilities_are_noticed(made: Any, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """It sees a white image, or has not got the weights."""
    loaded = checkpoint.load("pocket")
    if wrong == "weights":
        with torch.no_grad():
            loaded.model.get_output_embeddings().weight.mul_(0.3)
    engine = Engine(loaded.model, loaded.processor, blind=wrong == "image")
    with pytest.raises(FieldmarkError, match="disagree on how likely the same [0-9]+ tokens are"):
        check(made, engine, monkeypatch)
