"""The leaderboard: best first, the same numbers as the benchmark, and nothing compared that was not asked alike."""

from __future__ import annotations

import json

import pytest

from mllm.errors import FieldmarkError
from mllm.evaluation import runs, scores
from mllm.evaluation.report import leaderboard
from tests.evaluation.report.test_report import benchmark
from tests.support.command_line import fieldmark


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("board")
    half, whole = benchmark(root / "half", ["left", "right"] * 4), benchmark(root / "whole", ["left"] * 8)
    return {"half_100%": half, "whole|it": whole}


def test_rows_are_the_benchmarks_own_numbers(folders):
    best, other = leaderboard.rows(folders)
    assert (best["name"], best["acc"]["value"], other["acc"]["value"]) == ("whole|it", 1.0, 0.5)
    table = scores.table(runs.load(folders["half_100%"]).cases)["slices"]
    assert other["acc"] == table["all"]["acc"]
    assert leaderboard.rows(folders, "domain dog")[1]["acc"] == table["domain dog"]["acc"]


def test_formats(folders):
    command = ["leaderboard", *(f"{name}={folder}" for name, folder in folders.items())]
    outputs = {kind: fieldmark([*command, "--format", kind]).output for kind in leaderboard.FORMATS}
    first = outputs["markdown"].splitlines()[2]
    assert first.startswith(r"| whole\|it ") and " 100.0 " in first
    lines = outputs["latex"].splitlines()
    assert lines[0] == r"\begin{tabular}{llrrrrrr}" and lines[2].count("&") == lines[5].count("&") == 7
    assert lines[5].startswith(r"half\_100\% & think & 8 & 50.0 & ") and lines[5].endswith(r"\\")
    assert [row["name"] for row in json.loads(outputs["json"])] == ["whole|it", "half_100%"]


def test_what_is_refused(folders, tmp_path):
    other = benchmark(tmp_path / "other", ["left"] * 3)
    for named, part, says in (
        ({}, "all", "needs a run"),
        ({**folders, "other": other}, "all", "other and half_100% answered different samples"),
        (folders, "domain car", "no slice 'domain car'; it has all"),
    ):
        with pytest.raises(FieldmarkError, match=says):
            leaderboard.rows(named, part)
    with pytest.raises(FieldmarkError, match="unknown format 'html'"):
        leaderboard.text([], "html")
