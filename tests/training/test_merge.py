"""Adapters become full models with the same logits, and a merge that changed anything leaves nothing behind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mllm
from mllm.config import Lora, Part
from mllm.errors import FieldmarkError
from mllm.models import checkpoint, families
from mllm.models.parts import trainable_by_part
from mllm.training import merge
from tests.support.scenes import make_data


def adapter(base: Path, folder: Path, *parts: Part) -> Path:
    """An adapter that changes the model's logits, as training would save it."""
    loaded = checkpoint.load(base, lora=Lora(r=4, parts=parts or ("llm",)))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05, generator=generator)
    loaded.model.save_pretrained(folder)
    families.write_convention(folder, loaded.convention)
    return folder


@pytest.mark.ci
def test_a_merged_adapter_has_the_logits_of_base_and_adapter(pocket_folder: Path, tmp_path: Path) -> None:
    saved = adapter(pocket_folder, tmp_path / "adapter", "llm", "projector", "vision")
    done = merge.merge(saved, tmp_path / "whole")
    assert done.adapter and done.merged < 1e-4 and done.saved < 1e-6
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    assert {path.suffix for path in (tmp_path / "whole").iterdir()} <= {".json", ".safetensors", ".jinja"}
    whole, apart = mllm.load(str(tmp_path / "whole")).loaded, checkpoint.load(saved)
    assert whole.convention == apart.convention
    torch.testing.assert_close(merge.logits(whole), merge.logits(apart), rtol=0, atol=1e-4)
    base = checkpoint.load(pocket_folder)
    assert (merge.logits(base) - merge.logits(apart)).abs().max() > 1e-2, "the adapter changed nothing"


@pytest.mark.ci
def test_half_precision_is_checked_as_such(pocket_folder: Path, tmp_path: Path) -> None:
    done = merge.merge(adapter(pocket_folder, tmp_path / "adapter"), tmp_path / "whole", dtype="bfloat16")
    assert 1e-6 < done.merged < merge.TOLERANCE["bfloat16"]


def test_a_merge_that_changes_the_model_is_refused(
    pocket_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraModel

    saved = adapter(pocket_folder, tmp_path / "adapter")
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())  # forgets the adapter
    with pytest.raises(FieldmarkError, match="merging changed the model: logits differ by"):
        merge.merge(saved, tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_what_is_there_is_not_written_over(pocket_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match="exists already"):
        merge.merge(pocket_folder, tmp_path)
    with pytest.raises(FieldmarkError, match="nor shards of DeepSpeed"):
        merge.merge(pocket_folder, tmp_path / "new", masters=True)


@pytest.mark.parametrize("part", ["vision", "projector", "llm"])
def test_each_part_has_its_own_switch(part: Part, pocket_folder: Path) -> None:
    trained = trainable_by_part(checkpoint.load(pocket_folder, lora=Lora(r=2, parts=(part,))).model)
    assert {name for name, (count, _) in trained.items() if count} == {part}


@pytest.mark.ci
@pytest.mark.timeout(1800)
def test_qlora_trains_on_a_cpu_and_merges(tmp_path: Path) -> None:
    """SFT of an adapter on the pocket base in 4 bits, a GRPO step of it, and the merge."""
    from bitsandbytes.nn import Linear4bit

    from recipes import rl, sft

    four = checkpoint.load("pocket", checkpoint.LoadOptions(quantize="4bit"), lora=Lora(r=2))
    assert any(isinstance(module, Linear4bit) for module in four.model.modules())
    train, _ = make_data(tmp_path / "data", train=4, validation=1)
    ours: dict[str, Any] = {
        "model": "pocket", "train": str(train), "style": "direct", "dtype": "float32", "quantize": "4bit",
        "lora": {"r": 4}, "max_tokens_per_sample": 512,
    }  # fmt: skip
    theirs: dict[str, Any] = {
        "output_dir": str(tmp_path / "sft"), "max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 5e-3,
        "logging_steps": 1, "save_strategy": "no", "bf16": False, "gradient_checkpointing": False,
    }  # fmt: skip
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({"fieldmark": ours, **theirs}))
    sft.main(["--config", str(tmp_path / "sft.yaml")])
    losses = [row["loss"] for row in _journal(tmp_path / "sft") if "loss" in row]
    assert losses[2] < losses[0]
    ours |= {"model": str(tmp_path / "sft"), "rewards": {"iou": {}, "format": {"style": "direct"}}}
    theirs |= {"output_dir": str(tmp_path / "rl"), "max_steps": 1, "num_generations": 4, "max_completion_length": 24}
    (tmp_path / "rl.yaml").write_text(yaml.safe_dump({"fieldmark": ours, **theirs}))
    rl.main(["--config", str(tmp_path / "rl.yaml")])
    assert _journal(tmp_path / "rl")[0]["completions/mean_length"] > 0
    done = merge.merge(tmp_path / "rl", tmp_path / "whole", quantized=True)
    assert done.merged < 1e-4 and done.quantized is not None and 1e-4 < done.quantized < 0.5
    assert not any(
        isinstance(module, Linear4bit) for module in mllm.load(str(tmp_path / "whole")).loaded.model.modules()
    )


def _journal(folder: Path) -> list[dict[str, Any]]:

    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Code:
    """Pickled, it runs a command where it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("where", ["model", "optimizer", 2, 4])
def test_code_in_a_strangers_shards_does_not_run(
    where: str | int, pocket_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    monkeypatch.delenv(merge.WEIGHTS_ONLY, raising=False)
    folder = tmp_path / "stranger"
    shutil.copytree(pocket_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "latest").write_text("step1")
    (folder / "step1").mkdir()
    code, ran = Code(tmp_path / "ran"), tmp_path / "ran"
    shapes = [{"norm": torch.Size([2])}]
    model = {"module": {}, "buffer_names": [], "param_shapes": shapes, "shared_params": {}, "ds_version": "0"}
    flat = [torch.tensor([1.0, 2.0])]
    state = {"zero_stage": ZeroStageEnum(2), "partition_count": 1, "single_partition_of_fp32_groups": flat}
    optimizer = {"optimizer_state_dict": state | {"loss_scaler": LossScaler(scale=1.0)}}

    def save(model: dict[str, Any], optimizer: dict[str, Any]) -> None:
        torch.save(model, folder / "step1" / "mp_rank_00_model_states.pt")
        torch.save(optimizer, folder / "step1" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")

    save(model, optimizer)  # a run's own shards are read, DeepSpeed's counters included
    with pytest.raises(FieldmarkError, match=r"shards do not match its config.json: \d+ weights .norm"):
        merge.merge(folder, tmp_path / "new")
    if isinstance(where, int):
        (folder / "step1" / "mp_rank_00_model_states.pt").write_bytes(pickle.dumps(code, where))
    else:
        save(model | {"extra": code} if where == "model" else model, optimizer | {"extra": code})
    named = "no pickle of torch" if where == 4 else "posix.system"
    with pytest.raises(FieldmarkError, match=f"than the tensors and counters .*{named}.*could run") as caught:
        merge.merge(folder, tmp_path / "new")
    assert not ran.exists() and merge.WEIGHTS_ONLY not in os.environ and "\n" not in str(caught.value)
    pickle.loads(pickle.dumps(code))  # the code works where nothing holds it
    assert ran.exists()
