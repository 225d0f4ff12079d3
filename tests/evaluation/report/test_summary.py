"""The opening sentences and the answers before and after: from the numbers, and no more than they carry."""

from __future__ import annotations

from pathlib import Path

from mllm.evaluation import report
from tests.evaluation.report.test_report import THOUGHT, benchmark

RIGHT_THOUGHT = f"{THOUGHT}<answer>(10,20),(50,60)</answer>"


def _report(folder: Path, before: list[str], after: list[str]) -> dict:
    benchmark(folder / "a", before)
    benchmark(folder / "b", after)
    return report.build({"CoT-SFT": folder / "a", "GRPO": folder / "b"})


def test_the_report_opens_with_what_happened(tmp_path: Path) -> None:
    found = _report(tmp_path, ["left"] * 8 + ["right"] * 32, [RIGHT_THOUGHT] * 32 + ["right"] * 8)
    first, unseen, reasoning = found["summary"]
    assert first.startswith("GRPO answers 80.0 % (") and "of 40 questions right, CoT-SFT 20.0 % (" in first
    assert ": 60.0 points more (95 % interval of the difference " in first and "no order" not in first
    assert "of 20 questions about species that training never showed right" in unseen
    assert reasoning == (
        "An answer of GRPO has 9 tokens, one of CoT-SFT 9; its reasoning looks at 80.0 % of the things in the image "
        "(CoT-SFT: none)."
    )
    page = report.html(found)
    assert page.index(first[:40]) < page.index('id="before-after"') < page.index('id="scores"')
    assert first in report.markdown(found)


def test_a_difference_that_may_be_chance_is_not_called_one(tmp_path: Path) -> None:
    found = _report(tmp_path, ["left", "right"] * 6, ["left", "right"] * 5 + ["right", "right"])
    assert "fewer (95 % interval of the difference" in found["summary"][0]
    assert found["summary"][0].endswith("so no order can be claimed).")


def test_before_and_after_shows_gains_and_counts_losses(tmp_path: Path) -> None:
    found = _report(tmp_path, ["left"] * 2 + ["right"] * 6, ["right"] * 2 + ["left"] * 5 + ["right"])
    shown = found["before_after"]
    assert (shown["gained"], shown["lost"], len(shown["cases"])) == (5, 2, report.BEFORE_AFTER)
    for case in shown["cases"]:
        assert [(answer["name"], answer["hit"]) for answer in case["answers"]] == [("CoT-SFT", False), ("GRPO", True)]
    assert "GRPO answers 5 questions right that CoT-SFT answers wrong, and 2 the other way round" in report.html(found)


def test_one_run_has_no_story(tmp_path: Path) -> None:
    benchmark(tmp_path / "a", ["left", "right"])
    found = report.build({"base": tmp_path / "a"})
    assert found["summary"] == [] and found["before_after"] is None and "before-after" not in report.html(found)
