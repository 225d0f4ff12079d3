"""The arithmetic of bench/scale.py against values worked out by hand, and its inputs and tables as they are shipped."""

from __future__ import annotations

import json

import pytest

from bench import scale
from bench.scale import Inputs, ScaleStage
from mllm.errors import ConfigError
from mllm.training.config_file import load_yaml, parse

ROUND = {
    "card": "A100 80 GB", "gpus": 10, "cores": 100, "node_memory": 1e12, "gpu_hour": 2, "core_hour": 0.1,
    "terabyte_month": 20, "teacher_parameters": 1e10, "teacher_read_share": 0.5, "teacher_write_share": 0.5,
    "teacher_batch": 10, "chars_per_token": 4, "refused": 0.5, "encoder_parameters": 1e8, "encoder_tokens": 100,
    "encoder_share": 0.5, "student_parameters": 1e10, "learning_share": 0.5, "learning_operations": 8,
    "prompt_tokens": 50, "rl_share": 0.1, "rl_answers": 12, "rl_learned_answers": 8, "rl_operations": 10,
    "rl_token_seconds": 0.04, "rl_rows": 4,
}  # fmt: skip
UNITS = {
    "visual_tokens": 850, "thought_chars": 400, "request_chars": 600, "look_s": 0.01, "photo_row_bytes": 1000,
    "send_s": 0.02, "composite_s": 0.2, "append_s": 0.0, "composite_bytes": 200_000, "sample_bytes": 2000,
    "caption_s": 0.01, "caption_bytes": 500, "vector_bytes": 2048, "read_s": 0.001,
}  # fmt: skip


@pytest.fixture
def inputs() -> Inputs:
    return Inputs.model_validate(ROUND)


def test_the_teacher_reads_by_operations_and_writes_by_bandwidth(inputs: Inputs) -> None:
    """312e12 operations at half use and 2e10 a token: 7,800 tokens a second. 2.039e12 bytes at half use, 2e10 a token
    of ten rows: 509.75 tokens a second."""
    assert 1 / scale.reading_s(inputs) == pytest.approx(7800)
    assert 1 / scale.writing_s(inputs) == pytest.approx(509.75)
    assert scale.asking_s(inputs, 780, 509.75) == pytest.approx(1.5 * (0.1 + 1.0))


def test_learning_takes_so_many_operations_a_parameter(inputs: Inputs) -> None:
    """8 x 1e10 a token, 156e12 a second: 1,950 tokens a second."""
    assert scale.learning_s(inputs, 1950, 8) == pytest.approx(1.0)


def test_each_stage_by_hand(inputs: Inputs) -> None:
    """The teacher reads 850 + 600 / 4 = 1,000 tokens and writes 100; a row has 850 + 50 + 100 = 1,000."""
    found = {one.name: one for one in scale.stages(UNITS, inputs)}
    assert found["reasoning"].gpu_s == pytest.approx(1.5 * (1000 / 7800 + 100 / 509.75))
    assert found["reasoning"].core_s == pytest.approx(0.03) and found["reasoning"].disk == 1000
    assert found["composites and rows"].core_s == pytest.approx(0.3)
    assert found["composites and rows"].disk == 202_000
    assert found["vectors"].gpu_s == pytest.approx(2e10 / 156e12)
    assert found["SFT, one epoch"].gpu_s == pytest.approx(1000 / 1950)
    # A tenth of the rows: 12 answers of 100 tokens at 0.04 s for four rows, 8 of 1,000 learned at 1,560 a second.
    assert found["filter and GRPO"].gpu_s == pytest.approx(0.1 * (12 + 8000 / 1560))


def test_a_bill_by_hand(inputs: Inputs) -> None:
    """A million photos at 0.36 core seconds, 0.036 GPU seconds and 1 MB each: 100 core hours, 10 GPU hours, 1 TB."""
    found = scale.bill(ScaleStage("a stage", "an engine", 0.36, 0.036, 1e6), 1e6, inputs)
    assert (found.core_h, found.gpu_h, found.disk) == (pytest.approx(100), pytest.approx(10), pytest.approx(1e12))
    assert found.dollars == pytest.approx(50) and found.wall_h == pytest.approx(1.0)


def test_what_grows_faster_than_the_photos() -> None:
    """3n + 0.001n^2 through 1,000 and 2,000; a square through one size; 2 n^1.5 through 100 and 10,000."""
    assert scale.square({"10": 1e9, "1000": 4000, "2000": 10_000}, 1e6) == pytest.approx(3e6 + 1e9)
    assert scale.square({"1000": 5}, 1e4) == pytest.approx(500)
    assert scale.square({"1000": 4, "2000": 6}, 1e4) == pytest.approx(0.004 * 1e4), "never below a line"
    assert scale.power({"100": 2000, "10000": 2e6}, 1e6) == pytest.approx(2e9)


def test_words() -> None:
    assert [scale.span(h) for h in (0.01, 1.5, 30, 72, 48_000)] == ["36 s", "90 min", "30 h", "3 days", "5 years"]
    assert [scale.size(b) for b in (10, 3e6, 2.5e9, 4e12, 7e15)] == ["10 B", "3.0 MB", "2.5 GB", "4.0 TB", "7.0 PB"]


def test_the_shipped_inputs_and_units_make_the_tables_of_the_page() -> None:
    """docs/scale.md shows what the program prints."""
    units = json.loads(scale.INPUTS.with_name("scale_units.json").read_text(encoding="utf-8"))
    inputs = parse(load_yaml(scale.INPUTS), Inputs, str(scale.INPUTS))
    page = (scale.INPUTS.parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    printed = [line for line in scale.report(units, inputs, [1e6, 1e9]).splitlines() if line.startswith("|")]
    assert len(printed) > 30
    for line in printed:
        assert line in page, "docs/scale.md: `python -m bench.scale` prints another line now"


def test_an_unknown_input_is_refused(tmp_path) -> None:
    file = tmp_path / "inputs.yaml"
    file.write_text(scale.INPUTS.read_text() + "gpu_hours: 3\n")
    with pytest.raises(ConfigError, match="gpu_hour"):
        parse(load_yaml(file), Inputs, str(file))
