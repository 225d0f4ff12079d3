"""Which checkpoint is whole, and whether a folder holds this same run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm.config import Settings
from mllm.errors import FieldmarkError
from mllm.training import resume


def checkpoint(folder: Path, step: int, *, complete: bool = True, max_steps: int = 9) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "model.safetensors").write_text("weights")
    (made / "optimizer.pt").write_text("state")
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": max_steps}))
    if complete:
        (made / "fieldmark.json").write_text("{}")
    return made


def test_the_newest_complete_one_counts(tmp_path: Path) -> None:
    assert resume.last_complete(tmp_path) is None
    checkpoint(tmp_path, 9)
    whole = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, complete=False)  # killed while saving
    for step, sizes in ((12, "{"), (13, "[]"), (14, '{"model.safetensors": "x"}')):  # damaged later
        (checkpoint(tmp_path, step) / "sizes.json").write_text(sizes)
    assert resume.last_complete(tmp_path) == whole
    assert resume.checkpoint_to_resume(tmp_path, "auto") == whole


def test_never_does_not_train_over_an_older_run(tmp_path: Path) -> None:
    assert resume.checkpoint_to_resume(tmp_path, "never") is None
    checkpoint(tmp_path, 4)
    with pytest.raises(FieldmarkError, match="contains a run .checkpoint-4."):
        resume.checkpoint_to_resume(tmp_path, "never")


def test_a_named_checkpoint_must_be_one(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 4)
    assert resume.checkpoint_to_resume(tmp_path, str(made)) == made
    with pytest.raises(FieldmarkError, match="not a complete checkpoint"):
        resume.checkpoint_to_resume(tmp_path, str(checkpoint(tmp_path, 5, complete=False)))


def test_a_finished_run_is_known_and_its_weights_are_taken(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 9)
    assert resume.is_finished(made, max_steps=-1) and resume.is_finished(made, max_steps=9)
    assert not resume.is_finished(made, max_steps=10)
    resume.take_weights(made, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["fieldmark.json", "model.safetensors"]


def test_other_settings_or_data_are_not_gone_on_with(tmp_path: Path) -> None:
    run = {
        "settings": {"style": "think", "threads": 1},
        "trl": {"learning_rate": 1.0},
        "data": {"a": "0"},
        "world_size": 1,
    }
    resume.check_same(tmp_path, run)  # nothing there yet
    resume.write_run(tmp_path, run)
    resume.check_same(tmp_path, run | {"settings": {"style": "think", "threads": 4}, "world_size": 2})
    for section, changed, key in (
        ("settings", {"style": "direct"}, "style"),
        ("trl", {"learning_rate": 2.0}, "learning_rate"),
        ("data", {"a": "1"}, "a"),
    ):
        with pytest.raises(FieldmarkError, match=f"another {key}"):
            resume.check_same(tmp_path, run | {section: changed})


def test_a_run_describes_itself(tmp_path: Path) -> None:
    from trl import SFTConfig

    data = tmp_path / "a.jsonl"
    data.write_text("x")
    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    described = resume.describe(Settings(train=(data,)), args, [data])
    assert described["trl"]["seed"] == 42 and len(described["data"][str(data)]) == 64
    assert json.loads(json.dumps(described)) == described
    decide = {"learning_rate", "lr_scheduler_type", "per_device_train_batch_size", "gradient_accumulation_steps"}
    assert decide | {"seed", "weight_decay", "optim", "loss_type"} <= described["trl"].keys()


DECIDE = {
    "steps_per_generation": 2, "epsilon_high": 0.28, "delta": 4.0, "importance_sampling_level": "sequence",
    "mask_truncated_completions": True, "top_p": 0.9, "top_k": 20, "max_grad_norm": 0.1, "warmup_steps": 5,
    "entropy_coef": 0.01, "repetition_penalty": 1.05, "adam_beta2": 0.95, "data_seed": 1, "bf16": True,
    "dataloader_drop_last": True, "lr_scheduler_kwargs": {"num_cycles": 2}, "reward_weights": [1.0, 2.0],
    "generation_kwargs": {"stop_strings": "x"}, "use_vllm": True, "off_policy_mask_threshold": 0.5,
}  # fmt: skip
MAY_DIFFER = {
    "max_steps": 7, "num_train_epochs": 9.0, "output_dir": "elsewhere", "logging_steps": 3, "save_steps": 4,
    "report_to": ["wandb"], "log_completions": True, "hub_token": "secret", "eval_steps": 2, "use_cpu": False,
    "num_generations_eval": 2, "ddp_timeout": 9, "dataloader_num_workers": 2, "generation_batch_size": 64,
    "vllm_server_port": 1, "gradient_checkpointing": False, "activation_checkpointing": False, "torch_compile": True,
}  # fmt: skip


def test_all_that_decides_a_step_is_compared(tmp_path: Path) -> None:
    from trl import GRPOConfig

    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    before = resume.describe(Settings(), args, [])
    resume.write_run(tmp_path, before)
    for name, value in MAY_DIFFER.items():
        assert getattr(args, name) != value
        setattr(args, name, value)
    now = resume.describe(Settings(), args, [])
    resume.check_same(tmp_path, now)
    assert "secret" not in json.dumps(now)
    for name, value in DECIDE.items():
        old = getattr(args, name)
        setattr(args, name, value)
        with pytest.raises(FieldmarkError, match=rf"another {name} .trl.: it was .*, now it is .*restore the setting"):
            resume.check_same(tmp_path, resume.describe(Settings(), args, []))
        setattr(args, name, old)


def test_settings_that_another_version_lacks_are_named_not_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = {"settings": {"style": "think"}, "trl": {"seed": 1}, "data": {}, "world_size": 1}
    resume.write_run(tmp_path, run)
    later = run | {"settings": {"style": "think", "new": 3}, "trl": {"seed": 1, "entropy_coef": 0.0}}
    resume.check_same(tmp_path, later)
    assert "only one of both versions has them: new" in caplog.text and "has them: entropy_coef" in caplog.text
    with pytest.raises(FieldmarkError, match="another b.jsonl"):  # files are compared in full
        resume.check_same(tmp_path, run | {"data": {"b.jsonl": "0"}})
