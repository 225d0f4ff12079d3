"""How a training program ends: what a person can put right is said in words."""

from __future__ import annotations

import pytest
import torch

from mllm.errors import ConfigError
from mllm.training import run


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
