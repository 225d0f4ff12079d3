"""The comparison page: each run against the first, and the images on which runs disagree."""

from __future__ import annotations

import json

import pytest

from mllm.evaluation import report, runs
from tests.evaluation.report.test_report import EVIL, Page, benchmark
from tests.support.browser import browser
from tests.support.command_line import fieldmark

NAUGHTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    benchmark(folder / "a", ["left"] * 6 + ["right"] * 6, EVIL)
    benchmark(folder / "b", ["left"] * 4 + [EVIL] * 2 + ["left", *["right"] * 5], EVIL)
    benchmark(folder / "c", ["left"] * 12, EVIL)
    for name in ("a", "b"):
        (folder / f"train-{name}").mkdir()
        rows = [{"step": step, "eval/acc": step / 10, "seconds": step} for step in range(1, 9)]
        (folder / f"train-{name}" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def page_of(folders, tmp_path, *words):
    done = fieldmark(["compare", *words, "--out", str(tmp_path / "compare.html")])
    assert done.exit_code == 0, done.output
    return done.output, (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_every_run_is_set_against_the_first(folders, tmp_path):
    output, text = page_of(
        folders, tmp_path, f"A={folders / 'a'}", f"{NAUGHTY}={folders / 'b'}", f"C={folders / 'c'}",
        "--logs", f"A={folders / 'train-a'}", f"--logs=C={folders / 'train-b'}",
    )  # fmt: skip
    page = Page(text)
    assert not page.open and not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    rows = json.loads((tmp_path / "compare.json").read_text())["differences"]
    assert {(row["a"], row["b"]) for row in rows} == {("A", NAUGHTY), ("A", "C")}
    everything = next(row for row in rows if row["b"] == "C" and row["slice"] == "all")
    assert everything["acc"]["value"] == pytest.approx(0.5) and "C is above A (+50.0 points" in everything["sentence"]
    assert "from the first run" in output and "against the first" in text and "<details open><summary>By domain" in text
    curve = next(given for tag, given in page.tags if tag == "svg" and given.get("class") == "curve")
    assert "A ends at 0.8; C ends at 0.8" in str(curve["aria-label"])


def test_images_on_which_runs_disagree(folders):
    loaded = [runs.load(folders / name) for name in "ab"]
    found = report.disagreements(loaded)
    assert {case.sample.id for case in found} == {"s4", "s5", "s6"}, "lost by b: s4, s5; won by b: s6"
    assert [case.hit for case in found[:2]] == [True, False], "lost and won in turn"
    made = report.build({"a": folders / "a", "b": folders / "b"}, against_first=True)
    assert [[one["hit"] for one in case["answers"]] for case in made["gallery"][:2]] == [[True, False], [False, True]]
    assert all(case["answers"][0]["rectangle"] for case in made["gallery"])


def test_curves_alone_and_other_samples(folders, tmp_path):
    _, text = page_of(folders, tmp_path, str(folders / "train-a"), str(folders / "train-b"))
    assert not Page(text).open and "train-a ends at 0.8" in text and 'id="scores"' not in text
    short = benchmark(tmp_path / "short", ["right"] * 3)
    output, _ = page_of(folders, tmp_path, f"A={folders / 'a'}", f"S={short}")
    assert "answered different samples" in output


def test_one_run_is_no_comparison(folders):
    done = fieldmark(["compare", str(folders / "a")])
    assert done.exit_code == 2 and "needs two runs" in done.output


@pytest.mark.slow
def test_in_a_browser(folders, tmp_path):
    page_of(folders, tmp_path, f"A={folders / 'a'}", f"{NAUGHTY}={folders / 'b'}", f"--logs=A={folders / 'train-a'}")
    with browser(tmp_path / "profile") as tab:
        tab.size(1280, 1600)
        tab.open((tmp_path / "compare.html").as_uri())
        tab.wait("document.querySelectorAll('article.case').length == 3")
        assert tab.js("[...document.querySelectorAll('.answer svg')].every(e => e.getBoundingClientRect().height > 50)")
        assert tab.js("document.querySelectorAll('script, [onerror]').length") == 0 and not tab.console
        assert all(one.startswith(("file:", "data:")) for one in tab.requested)
        tab.shoot(tmp_path / "compare.png")
