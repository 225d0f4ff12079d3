"""How a training program ends: what a person can put right is said in words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mllm.config import Settings
from mllm.errors import ConfigError, FieldmarkError
from mllm.training import dataset, run


def test_a_card_that_is_too_small_is_told_with_what_to_turn() -> None:
    def main() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation for ...")

    with pytest.raises(SystemExit) as end:
        run.program(main)
    output = str(end.value)
    assert output.startswith("error: CUDA out of memory. Tried to allocate 2.00 GiB.\n`fieldmark preflight")
    assert "per_device_train_batch_size" in output and "documentation" not in output


def test_what_nobody_foresaw_keeps_its_traceback() -> None:
    def main() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run.program(main)


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (ConfigError("no rewards"), 2, "error: no rewards\n"),
        (KeyboardInterrupt(), 130, "stopped; the same command continues\n"),
    ],
)
def test_exit_codes_are_those_of_every_program(
    error: BaseException, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run.program(main)
    assert end.value.code == code and capsys.readouterr().err == printed


def test_a_run_without_a_step_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "training_callbacks", lambda *_: [])
    nothing = SimpleNamespace(
        args=SimpleNamespace(output_dir=str(tmp_path)), state=SimpleNamespace(global_step=0),
        remove_callback=lambda _: None, callback_handler=SimpleNamespace(callbacks=[]), train=lambda **_: None,
        save_model=lambda *_, **__: pytest.fail("saved"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="not a single step was taken, so nothing is saved"):
        run.train(nothing, Settings(), SimpleNamespace(resume_from=None))  # pyright: ignore[reportArgumentType]


def test_a_mistyped_model_is_found_before_data_and_folders_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dataset, "_make", lambda *_: pytest.fail("data was made"))
    for train in (dataset.POCKET_DATA, next(iter(dataset.POCKET_CAPTIONS))):
        settings = Settings(model="pockt", train=(train / "train.jsonl",))
        with pytest.raises(FieldmarkError, match="pockt: no such checkpoint folder"):
            dataset.make_pocket_data(settings)
    with pytest.raises(FieldmarkError, match="pockt: no such checkpoint folder"):
        run.prepare(settings, SimpleNamespace(output_dir="out"), answers=True)
    assert not list(tmp_path.iterdir())
    dataset.make_pocket_data(Settings(model="pockt", train=(Path("mine.jsonl"),)))  # nothing to make
