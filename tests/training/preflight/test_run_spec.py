"""Hardware read from accelerate's configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm.errors import ConfigError
from mllm.training.preflight import run_spec
from mllm.training.preflight.run_spec import Hardware

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("accelerate_config.yaml", Hardware(8, 2, True, False, 80)),
        ("accelerate_configs/zero3_multi_node.yaml", Hardware(16, 3, True, False, 80)),
        ("accelerate_configs/ddp_multi_gpu.yaml", Hardware(8, 0, False, False, 80)),
        ("accelerate_configs/one_gpu.yaml", Hardware(1, 0, False, False, 24)),
        (None, Hardware(1, 0, False, False, 24)),
    ],
)
def test_the_configurations_of_the_repository(file: str | None, expected: Hardware) -> None:
    assert run_spec.read_hardware(ROOT / file if file else None) == expected


def test_flags_win() -> None:
    found = run_spec.read_hardware(ROOT / "accelerate_config.yaml", processes=4, gpu_memory=48)
    assert found == Hardware(4, 2, True, False, 48) and str(found) == "4 x 48 GiB, DeepSpeed ZeRO-2"


def test_what_cannot_be_worked_out_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    text = (ROOT / "accelerate_config.yaml").read_text()
    file.write_text(text.replace("DEEPSPEED", "FSDP"))
    with pytest.raises(ConfigError, match="FSDP"):
        run_spec.read_hardware(file)
    file.write_text(text + "no_such_key: 1\n")
    with pytest.raises(ConfigError, match="accelerate cannot read it"):
        run_spec.read_hardware(file)
    with pytest.raises(ConfigError, match="no such accelerate configuration"):
        run_spec.read_hardware(tmp_path / "b.yaml")
    with pytest.raises(ConfigError, match="at least one process"):
        run_spec.read_hardware(None, processes=0)
