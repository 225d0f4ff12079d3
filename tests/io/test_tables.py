"""Markdown tables and intervals as text."""

from __future__ import annotations

from mllm.io.tables import interval, markdown, percent, percent_interval

MEAN = {"value": 0.15, "low": 0.125, "high": 0.2}


def test_a_table_is_aligned_and_its_cells_stay_on_their_line() -> None:
    table = markdown([("name", "n"), ("a|b", 12), ("two\nlines", None)])
    assert table.splitlines() == [
        "| name      | n    |",
        "|-----------|------|",
        "| a\\|b      | 12   |",
        "| two lines | null |",
    ]


def test_a_long_cell_does_not_widen_the_others() -> None:
    lines = markdown([("setting", ""), ("a", "x" * 300), ("b", "y")]).splitlines()
    assert len(lines[2]) > 300
    assert len(lines[3]) < 60


def test_shares_and_intervals_are_percent() -> None:
    assert (percent(0.1234), percent(None), percent(0.05, sign=True)) == ("12.3", "–", "+5.0")
    assert interval(MEAN) == "12.5 to 20.0"
    assert percent_interval(MEAN, sign=True) == "+15.0 (12.5 to 20.0)"
    assert percent_interval({"value": 0.15, "low": None, "high": None}) == "15.0"
    assert percent_interval(None) == interval({"low": None}) == "–"
