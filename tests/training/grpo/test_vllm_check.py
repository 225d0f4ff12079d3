"""The comparison that comes before vLLM's rollouts, with transformers on both sides and one of them broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mllm.errors import FieldmarkError
from mllm.models import checkpoint
from mllm.models.checkpoint import Loaded
from mllm.prompting import conversations
from mllm.training.dataset import Row
from mllm.training.grpo import vllm_check
from tests.support.scenes import make_scene


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return checkpoint.load("pocket")


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory, loaded: Loaded) -> dict[str, Any]:
    from mllm.training import trl_adapter

    folder = tmp_path_factory.mktemp("scene")
    scene = make_scene(folder, 0, "train", across=2, down=1)
    return trl_adapter.dataset([Row(scene, folder / scene.image)], loaded.convention, answers=False)[0]


def generate(model: Any, processor: Any, row: dict[str, Any], temperature: float = 1.0) -> vllm_check.EngineOutput:
    """Answer a row with transformers' own sampling, as vLLM would."""
    inputs = vllm_check._encode(model, processor, row)
    out = model.generate(
        **inputs, max_new_tokens=16, do_sample=True, temperature=temperature, top_k=0, top_p=1.0,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    count = inputs["input_ids"].shape[1]
    written = out.sequences[0, count:].tolist()
    logps = [score[0].float().log_softmax(-1)[token].item() for score, token in zip(out.scores, written, strict=True)]
    return vllm_check.EngineOutput(count, tuple(written), tuple(logps))


def test_two_sound_engines_agree(loaded: Loaded, row: dict[str, Any]) -> None:
    torch.manual_seed(0)
    rollout = generate(loaded.model, loaded.processor, row, temperature=0.8)
    reread = vllm_check.read(loaded.model, loaded.processor, row, rollout.written, temperature=0.8)
    assert 0 < len(rollout.written) <= 16 and rollout.prompt_tokens > 12
    assert vllm_check.compare(rollout, reread) < 1e-4


@pytest.mark.parametrize(
    ("use", "mode", "forbidden"), [(True, "colocate", 1), (True, "server", 0), (False, "colocate", 0)]
)
def test_vllm_is_kept_from_writing_image_tokens(use: bool, mode: str, forbidden: bool, loaded: Loaded) -> None:
    args: Any = SimpleNamespace(use_vllm=use, vllm_mode=mode, generation_kwargs={"top_k": 5})
    vllm_check.no_image_tokens(args, loaded.processor)
    assert args.generation_kwargs.pop("top_k") == 5
    never = {loaded.processor.image_token_id, loaded.processor.vision_start_token_id}
    assert never <= set(args.generation_kwargs.get("logit_bias", {})) if forbidden else not args.generation_kwargs


def test_an_image_spelled_out_twice_is_noticed(loaded: Loaded, row: dict[str, Any]) -> None:
    """What TRL 1.16 does to vLLM: the prompt's image tokens, each spelled out again."""
    torch.manual_seed(0)
    sound = generate(loaded.model, loaded.processor, row)
    image = loaded.processor.image_token_id
    ids = vllm_check._encode(loaded.model, loaded.processor, row)["input_ids"][0].tolist()
    twice = replace(sound, prompt_tokens=len(ids) + ids.count(image))
    with pytest.raises(FieldmarkError, match="the rollout engine reads .* expanded twice.*use_vllm: false"):
        vllm_check.compare(twice, sound)


def test_an_engine_that_sees_another_image_is_noticed(loaded: Loaded, row: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image

    words = conversations.target(row["sample"], loaded.convention)  # what is in the image, and where
    written = loaded.processor.tokenizer(words, add_special_tokens=False)["input_ids"]
    blank = row | {"images": [Image.new("RGB", row["images"][0].size, "white")]}
    reread = vllm_check.read(loaded.model, loaded.processor, row, written)
    rollout = vllm_check.read(loaded.model, loaded.processor, blank, written)
    assert rollout.prompt_tokens == reread.prompt_tokens
    with pytest.raises(FieldmarkError, match="disagree on how likely the same [0-9]+ tokens are: by .* nats"):
        vllm_check.compare(rollout, reread)


def test_an_engine_at_another_temperature_is_noticed(loaded: Loaded, row: dict[str, Any]) -> None:
    torch.manual_seed(0)
    rollout = generate(loaded.model, loaded.processor, row, temperature=2.0)
    with pytest.raises(FieldmarkError, match="disagree"):
        vllm_check.compare(rollout, vllm_check.read(loaded.model, loaded.processor, row, rollout.written))


@pytest.mark.parametrize("logp", [float("nan"), -9.0])
def test_a_number_that_is_none_and_no_answer_at_all(logp: float) -> None:
    sound = vllm_check.EngineOutput(10, (4,), (-1.0,))
    with pytest.raises(FieldmarkError, match="disagree"):
        vllm_check.compare(replace(sound, logps=(logp,)), sound)
    with pytest.raises(FieldmarkError, match="other tokens"):
        vllm_check.compare(replace(sound, written=(), logps=()), replace(sound, written=(), logps=()))
