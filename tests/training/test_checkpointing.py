"""Checkpoints at the right moments, whole, and what a disk does to them."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from transformers import TrainerControl
from transformers.trainer_utils import IntervalStrategy

from mllm.errors import FieldmarkError
from mllm.io.files import DISK_FULL
from mllm.training import checkpointing, resume, run
from mllm.training.checkpointing import Boundaries, PerEpoch
from mllm.training.grpo.trainer import PrefixGRPOTrainer
from tests.support.scenes import make_data


def state(step: int, **how: Any) -> Any:
    info = {"global_step": step, "max_steps": 20, "logging_steps": 3, "save_steps": 5, "epoch": 0.0}
    return SimpleNamespace(**(info | {"is_world_process_zero": True} | how))


ARGS = SimpleNamespace(logging_strategy=IntervalStrategy.STEPS, save_strategy=IntervalStrategy.STEPS)


def drawing(window: int) -> Boundaries:
    """Boundaries of a trainer that draws completions for so many steps."""
    return Boundaries(SimpleNamespace(window=window, used_up=True))


def saved_at(boundaries: Boundaries, steps: int, **how: Any) -> list[int]:
    """The steps at which a run that asks for a save every five steps saves."""
    found = []
    for step in range(1, steps + 1):
        boundaries.trainer.used_up = step % boundaries.trainer.window == 0
        control = TrainerControl()
        control.should_save = step % 5 == 0
        boundaries.on_step_end(ARGS, state(step, **how), control)
        found += [step] if control.should_save else []
    return found


def test_numbers_given_as_flags_are_floats() -> None:
    boundaries = drawing(4)
    boundaries.on_train_begin(ARGS, state(0, logging_steps=3.0), TrainerControl())
    assert saved_at(boundaries, 20, logging_steps=3.0) == [12, 20]


def test_saves_wait_for_the_end_of_answers_and_logs() -> None:
    assert saved_at(drawing(1), 20, logging_steps=1) == [5, 10, 15, 20]
    assert saved_at(drawing(4), 20, logging_steps=1) == [8, 12, 16, 20]
    assert saved_at(drawing(4), 20, logging_steps=3) == [12, 20]  # the last step closes everything
    assert saved_at(drawing(1), 20, logging_steps=50) == [5, 10, 15, 20]  # logs rarer than saves are cut in two


def test_a_stop_waits_for_the_answers_alone() -> None:
    boundaries, seen = drawing(4), []
    for step in range(1, 9):
        boundaries.trainer.used_up = step % 4 == 0
        control = TrainerControl()
        control.should_training_stop = control.should_save = step == 5
        boundaries.on_step_end(ARGS, state(step), control)
        seen.append((control.should_training_stop, control.should_save))
    assert seen == [(False, False)] * 7 + [(True, True)]


@pytest.mark.parametrize(
    ("drawn", "accumulated", "iterations", "epoch", "saved"),
    [
        (3, 2, 1, 9, [3, 5, 8, 10, 13, 15]),  # the fifth step of an epoch has one micro-step, not two
        (3, 2, 1, 3, [2, 4, 6, 8, 10, 12, 14, 16]),
        (2, 3, 2, 8, [3, 6, 9, 12, 15]),  # each drawn batch is trained on twice
        (4, 2, 1, 8, [2, 4, 6, 8, 10, 12, 14, 16]),  # no step is shorter
    ],
)
def test_no_save_falls_into_a_drawn_batch_after_a_shorter_step(
    drawn: int, accumulated: int, iterations: int, epoch: int, saved: list[int]
) -> None:
    """Each drawn batch lasts `drawn` x `iterations` micro-steps; an epoch's last step takes what is left of it."""
    trainer: Any = object.__new__(PrefixGRPOTrainer)
    trainer.args = SimpleNamespace(steps_per_generation=drawn, gradient_accumulation_steps=accumulated)
    trainer.num_iterations, trainer._step = iterations, 0
    boundaries, found, left = Boundaries(trainer), [], epoch
    for step in range(1, 17):
        taken = min(accumulated, left)
        trainer._step, left = trainer._step + taken, left - taken or epoch
        control = TrainerControl()
        control.should_save = True
        boundaries.on_step_end(ARGS, state(step, logging_steps=1), control)
        found += [step] if control.should_save else []
    assert found == saved


def test_an_epochs_order_depends_on_the_epoch_alone() -> None:
    made = PerEpoch(RandomSampler(range(9), generator=torch.Generator().manual_seed(3)), seed=3)
    straight = []
    for epoch in range(3):
        made.set_epoch(epoch)
        straight.append(list(made))
    again = PerEpoch(RandomSampler(range(9), generator=torch.Generator().manual_seed(3)), seed=3)
    again.set_epoch(2)
    assert list(again) == straight[2] and straight[0] != straight[1] != straight[2]
    assert straight[0] == list(RandomSampler(range(9), generator=torch.Generator().manual_seed(3))), "TRL's own first"


def test_the_sampler_is_told_its_epoch_through_every_wrapper() -> None:
    inner = PerEpoch(RandomSampler(range(8), generator=torch.Generator()), seed=0)
    wrapped = SimpleNamespace(batch_sampler=SimpleNamespace(batch_sampler=BatchSampler(inner, 2, False)))
    for loader in (DataLoader(list(range(8)), batch_sampler=BatchSampler(inner, 2, False)), wrapped):
        inner.set_epoch(0)
        drawing(1).on_epoch_begin(ARGS, state(0, epoch=2.0), None, train_dataloader=loader)
        assert inner.epoch == 2


def checkpoint(folder: Path, step: int) -> Path:
    from mllm.models import families

    made = folder / f"checkpoint-{step}"
    (made / "global_step").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "global_step/shard.pt"):
        (made / name).write_bytes(b"x" * 100)
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 9}))
    resume.seal(made, families.Convention("pocket", "think", families.load("pocket").budget))
    return made


@pytest.mark.parametrize("name", ["optimizer.pt", "global_step/shard.pt"])
def test_a_file_that_lost_its_end_is_noticed(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, broken = checkpoint(tmp_path, 4), checkpoint(tmp_path, 6)
    assert resume.last_complete(tmp_path) == broken
    (broken / name).write_bytes(b"x" * 60)
    assert resume.last_complete(tmp_path) == whole
    assert f"{name} is 60 bytes, but had 100 bytes" in caplog.text
    with pytest.raises(FieldmarkError, match="not a complete checkpoint.*is 60 bytes"):
        resume.checkpoint_to_resume(tmp_path, str(broken))


def test_a_failed_save_is_reported_and_its_half_removed(tmp_path: Path) -> None:
    half = tmp_path / "checkpoint-8"
    half.mkdir()
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left on device: .*checkpoint-8"):
        with checkpointing.clear_save_errors(half):
            raise full
    assert not half.exists()
    whole = checkpoint(tmp_path, 4)
    with pytest.raises(OSError):
        with checkpointing.clear_save_errors(whole):
            raise full
    assert resume.last_complete(tmp_path) == whole
    with pytest.raises(FieldmarkError, match="checkpoint-4 could not be written .*Permission denied"):
        with checkpointing.clear_save_errors(whole):
            raise PermissionError(errno.EACCES, "Permission denied")
    for numbers in (9, 100_000):  # torch words it in two ways
        half.mkdir()
        with pytest.raises(OSError, match="checkpoint-8") as found:
            with checkpointing.clear_save_errors(half):
                torch.save({"state": torch.zeros(numbers)}, "/dev/full")
        assert not half.exists() and found.value.errno in DISK_FULL
    with pytest.raises(RuntimeError, match="shape"):
        with checkpointing.clear_save_errors(half):
            raise RuntimeError("shape mismatch")


def test_a_folder_that_cannot_be_written_in_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FieldmarkError, match="not writable"):
        run._check_folder(tmp_path / "file" / "out")
    run._check_folder(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.ci
@pytest.mark.timeout(900)
def test_a_full_disk_loses_nothing(tmp_path: Path, pocket_folder: Path) -> None:
    """No file may grow above 5 MB, first from the third step on, then after the last one.

    First the fourth step's checkpoint fails, and the second's is whole. Then the weights at the end fail, in a folder
    that holds those of a shorter run: the checkpoint's are taken the next time.
    """
    train, _ = make_data(tmp_path / "data", train=4, validation=1)
    ours = {"model": str(pocket_folder), "train": str(train), "style": "direct", "dtype": "float32"}
    theirs = {
        "output_dir": str(tmp_path / "out"), "max_steps": 4, "per_device_train_batch_size": 2, "save_steps": 2,
        "logging_steps": 1, "bf16": False, "use_cpu": True, "gradient_checkpointing": False,
    }  # fmt: skip
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({"fieldmark": ours, **theirs}))
    from recipes import sft

    class Full(checkpointing.TrainerCallback):
        def __init__(self, from_step: int) -> None:
            self.from_step = from_step

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == self.from_step:
                resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.on_step_begin(None, SimpleNamespace(global_step=self.from_step), None)

    def on_a_small_disk(from_step: int) -> None:
        before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
        train_it = run.train

        def train_on_a_small_disk(trainer: Any, *rest: Any) -> None:
            trainer.add_callback(Full(from_step))
            train_it(trainer, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "train", train_on_a_small_disk)
            try:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                with pytest.raises(OSError, match="File too large: .*out"):
                    sft.main(["--config", str(tmp_path / "sft.yaml")])
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                signal.signal(signal.SIGXFSZ, handler)

    out = tmp_path / "out"
    on_a_small_disk(2)
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-2"]
    assert resume.last_complete(out) == out / "checkpoint-2"
    shutil.copy(out / "checkpoint-2" / "fieldmark.json", out)
    (out / "model.safetensors").write_text("of a shorter run")
    on_a_small_disk(-1)  # disk space was freed: the same command continues
    assert resume.last_complete(out) == out / "checkpoint-4" and not (out / "fieldmark.json").exists()
    sft.main(["--config", str(tmp_path / "sft.yaml")])
    written = (out / "model.safetensors").read_bytes()
    assert len(written) > 5_000_000 and written == (out / "checkpoint-4" / "model.safetensors").read_bytes()
