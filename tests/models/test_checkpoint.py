"""Checkpoints: what they say of themselves, how long their rows are, what is frozen, adapters on top."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mllm.config import Lora, Part
from mllm.errors import ConfigError, FamilyError, FieldmarkError
from mllm.models import encoders, families
from mllm.models.checkpoint import Checkpoint, LoadOptions, base_and_adapter, device_of, load, open_checkpoint
from mllm.models.parts import freeze_parts, part_of, trainable_by_part
from mllm.prompting import conversations
from mllm.records import load_samples
from tests.support.scenes import make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("models"), train=4, validation=1)[0]


@pytest.fixture(scope="module")
def checkpoint(pocket_folder: Path) -> Checkpoint:
    return open_checkpoint(pocket_folder, style="think")


def bare(folder: Path, source: Path, **config: object) -> Path:
    """A checkpoint as it comes from the Hub: no fieldmark.json (config values replaced on demand)."""
    shutil.copytree(source, folder)
    (folder / families.CONVENTION_FILE).unlink()
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_the_convention_beside_the_weights_is_followed(pocket_folder: Path) -> None:
    opened = open_checkpoint(pocket_folder)
    assert opened.family.name == "pocket" and opened.adapter is None
    assert opened.convention == families.read_convention(pocket_folder)
    assert dict(opened.processor.image_processor.size) == opened.convention.budget.size


def test_a_budget_in_visual_tokens_reaches_processor_and_convention(pocket_folder: Path) -> None:
    opened = open_checkpoint(pocket_folder, visual_tokens=20, min_visual_tokens=4)
    assert opened.convention.budget == families.Budget(4 * 32 * 32, 20 * 32 * 32)
    assert dict(opened.processor.image_processor.size) == opened.convention.budget.size
    small = open_checkpoint(pocket_folder, visual_tokens=2)  # below the base's own minimum
    assert small.convention.budget == families.Budget(2 * 32 * 32, 2 * 32 * 32)


def test_without_a_convention_the_family_must_be_named(pocket_folder: Path, tmp_path: Path) -> None:
    folder = bare(tmp_path / "hub", pocket_folder)
    with pytest.raises(FamilyError, match="no fieldmark.json.*for model type qwen3_vl: qwen3_vl$"):
        open_checkpoint(folder)
    opened = open_checkpoint(folder, family="qwen3_vl")
    assert opened.family.name == opened.convention.family == "qwen3_vl"
    with pytest.raises(FamilyError, match="qwen2_vl.*weights are of type qwen3_vl"):
        open_checkpoint(folder, family="qwen2_vl")
    with pytest.raises(FieldmarkError, match="unknown family 'qwen'.*qwen3_vl"):  # beside a fieldmark.json, too
        open_checkpoint(pocket_folder, family="qwen")
    with pytest.raises(FieldmarkError, match="unknown family 'qwen9'"):
        open_checkpoint(folder, family="qwen9")


def test_a_checkpoint_of_an_unknown_family_is_refused(pocket_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    shutil.copytree(pocket_folder, folder)
    path = folder / families.CONVENTION_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"family": "florence"}))
    with pytest.raises(FamilyError, match="florence"):
        open_checkpoint(folder)


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match="no such checkpoint folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FieldmarkError, match="not a checkpoint: neither config.json"):
        open_checkpoint(tmp_path)
    with pytest.raises(FieldmarkError, match="no such checkpoint folder"):
        open_checkpoint("x" * 5000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1]", "adapter_config.json: an object is needed"),
        (b"\xff", "adapter_config.json:1: broken JSON: not UTF-8"),
        (b"{}", "field base_model_name_or_path: is missing; write the name of the base there"),
        (b'{"base_model_name_or_path": 7}', "field base_model_name_or_path: Input should be a valid string"),
        (b'{"base_model_name_or_path": "HERE"}', "is an adapter too; merge that one"),
    ],
)
def test_an_adapter_without_a_base_is_an_error(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "adapter_config.json").write_bytes(text.replace(b"HERE", str(tmp_path).encode()))
    with pytest.raises(FieldmarkError, match=message):
        base_and_adapter(str(tmp_path))


@pytest.mark.parametrize("style", ["direct", "think"])
def test_lengths_are_those_of_the_trainers_own_collator(checkpoint: Checkpoint, data: Path, style: str) -> None:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from mllm.records import image_path
    from mllm.training import trl_adapter

    opened = replace(checkpoint, convention=replace(checkpoint.convention, prompt=style))
    samples = load_samples(data)
    rows = trl_adapter.dataset(
        [trl_adapter.Row(s, image_path(data, s)) for s in samples], opened.convention, answers=True
    )
    collator = DataCollatorForVisionLanguageModeling(opened.processor, completion_only_loss=True)
    batch = collator(rows.__getitems__(list(range(len(samples)))))
    assert conversations.lengths(samples, opened) == batch["attention_mask"].sum(1).tolist()
    prompts = (batch["attention_mask"].bool() & (batch["labels"] == -100)).sum(1).tolist()
    assert conversations.lengths(samples, opened, answers=False) == prompts
    tokenizer = opened.processor.tokenizer
    for sample, labels in zip(samples, batch["labels"], strict=True):  # the loss is on the answer and its end alone
        assert (
            tokenizer.decode(labels[labels != -100]) == conversations.target(sample, opened.convention) + "<|im_end|>\n"
        )


def test_rows_that_do_not_fit_are_refused_by_name(checkpoint: Checkpoint, data: Path) -> None:
    samples = load_samples(data)
    counted = conversations.check_length(samples, checkpoint, 512)
    with pytest.raises(
        FieldmarkError, match=rf"do not fit into max_tokens_per_sample = .*{samples[0].id} \({counted[0]} tokens\)"
    ):
        conversations.check_length(samples, checkpoint, min(counted) - 1)
    conversations.check_length(samples, checkpoint, max(counted))
    with pytest.raises(FieldmarkError, match="4 of 4 rows.*with 500 tokens kept free"):
        conversations.check_length(samples, checkpoint, 512, answers=False, reserved=500)


def test_freezing_says_what_it_froze(checkpoint: Checkpoint) -> None:
    loaded = load(checkpoint, freeze=["vision", "projector"])
    counts = trainable_by_part(loaded.model)
    assert set(counts) == {"vision", "projector", "llm"}
    assert counts["vision"][0] == counts["projector"][0] == 0 < counts["vision"][1]
    assert counts["llm"][0] == counts["llm"][1] > 0
    freeze_parts(loaded.model, ["llm"])
    assert trainable_by_part(loaded.model)["llm"][0] == 0
    assert part_of("model.visual.deepstack_merger_list.0.linear_fc1.weight") == "projector"


@pytest.mark.parametrize("part", ["vision", "projector", "llm"])
def test_adapters_sit_on_the_parts_that_were_named(checkpoint: Checkpoint, part: Part) -> None:
    loaded = load(checkpoint, lora=Lora(r=2, parts=(part,)))
    trained = {name for name, (count, _) in trainable_by_part(loaded.model).items() if count}
    assert trained == {part}


def test_base_and_adapter_load_unmerged_to_the_same_logits(
    pocket_folder: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    import torch

    loaded = load(checkpoint, lora=Lora(r=4, parts=("llm", "vision")))
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)  # fresh adapters start at zero and would change nothing
    ids = torch.arange(20, 60)[None]
    loaded.model.save_pretrained(tmp_path)
    families.write_convention(tmp_path, loaded.convention)
    again = load(tmp_path)
    assert again.convention == loaded.convention
    assert type(again.model).__name__.startswith("Peft")
    with torch.no_grad():
        expected = loaded.model(input_ids=ids).logits
        base = load(pocket_folder).model(input_ids=ids).logits
        assert torch.equal(again.model(input_ids=ids).logits, expected)
    assert not torch.allclose(base, expected)
    assert not any(weight.requires_grad for weight in again.model.parameters())
    assert any(weight.requires_grad for weight in load(tmp_path, trainable=True).model.parameters())


def test_each_process_of_a_launch_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes that filter data would else load eight models onto the first GPU."""
    import torch

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device_of("auto") == "cuda" and device_of("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert device_of("auto") == "cuda:5"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert device_of("auto") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "GPU 0", "meta"])
def test_a_device_that_is_not_there_is_an_error_before_anything_is_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used: .*; give auto, cpu or cuda"):
        load(tmp_path / "nowhere", LoadOptions(device=name))
    with pytest.raises(ConfigError, match="cannot be used"):
        encoders.load(str(tmp_path / "nowhere"), device=name)
