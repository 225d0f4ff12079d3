"""The folder of a benchmark that somebody has edited: what is wrong in it is named, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mllm.errors import FieldmarkError
from mllm.evaluation import runs
from tests.evaluation.report.test_report import benchmark

BUDGET = {"min_pixels": 9216, "max_pixels": 55296}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": None}, "run.json: field convention: Input should be a valid dictionary, got None"),
        ({"model": 7}, "run.json: field model: Input should be a valid string, got 7"),
        ({"convention": {"family": "pocket"}}, "run.json: field convention: field prompt is missing"),
        ({"convention": {"family": "pocket", "prompt": "think", "budget": [1]}}, "convention: field budget: an object"),
        (
            {"convention": {"family": "pocket", "prompt": "think", "budget": BUDGET | {"side": 1}}},
            "convention: unknown field budget.side",
        ),
        (
            {"convention": {"family": "pocket", "prompt": "think", "budget": {"min_pixels": 9, "max_pixels": 2}}},
            "run.json: field convention: field budget: image budget: 0 < min_pixels",
        ),
    ],
)
def test_settings_of_other_kinds_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = benchmark(tmp_path / "run", ["left"]) / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(FieldmarkError) as error:
        runs.load(file.parent)
    assert message in str(error.value)


def test_half_a_character_in_the_settings_is_written_as_it_was_read(tmp_path: Path) -> None:
    file = benchmark(tmp_path / "run", ["left"]) / "run.json"
    file.write_text(file.read_text().replace('"m"', '"\\ud800"'))
    runs.write_scores(runs.load(file.parent))
    assert json.loads((file.parent / "scores.json").read_text())["model"] == "\ud800"
