"""Runs of captions on the leaderboard and on the comparison page: the judge's own numbers, paired, one kind a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm.data.bags import Bag
from mllm.errors import FieldmarkError
from mllm.evaluation import runs
from mllm.evaluation.report import caption_bags, leaderboard
from mllm.io.jsonl import write_jsonl
from mllm.records import Completion, load_samples
from tests.evaluation.report.test_report import EVIL, UNREAD, benchmark
from tests.support.command_line import fieldmark
from tests.support.scenes import make_captions

CONVENTION = {"family": "pocket", "prompt": "direct", "budget": {"min_pixels": 1, "max_pixels": 9}, "version": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twelve images in bags of three; `right` says each one's own caption, `same` one caption of all."""
    from eval import truematch

    root = tmp_path_factory.mktemp("captions")
    file = make_captions(root / "data", "test", families=4, size=3)
    samples = load_samples(file)
    ids = [sample.id for sample in samples]
    write_jsonl(root / "bags.jsonl", [Bag(f"b{k}", tuple(ids[k : k + 3])) for k in range(0, 12, 3)])
    captions = {"same": [samples[0].captions[0]] * 12, "right": [sample.captions[0] for sample in samples]}
    for name, texts in captions.items():
        runs.begin(root / name, {"model": name, "style": "direct", "convention": CONVENTION}, samples, file.parent)
        for sample, text in zip(samples, texts, strict=True):
            runs.append(root / name, Completion(sample.id, text, UNREAD))
        words = ["--captions", str(root / name / "outputs.jsonl"), "--samples", str(file)]
        truematch.main([*words, "--bags", str(root / "bags.jsonl"), "--out", str(root / name / "truematch.json")])
    return {name: root / name for name in captions}


def invoke(*words: str | Path) -> str:
    done = fieldmark([str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_board_holds_the_judges_numbers(folders: dict[str, Path]) -> None:
    named = [f"{name}={folder}" for name, folder in folders.items()]
    best, other = json.loads(invoke("leaderboard", *named, "--format", "json"))
    assert (best["name"], other["name"]) == ("right", "same")
    assert other["sizes"]["3"]["r1"]["value"] == pytest.approx(1 / 3) and best["text"]["precision"]["value"] == 1.0
    lines = invoke("leaderboard", *named).splitlines()
    assert "R@1 of 3 (chance 33.3)" in lines[0] and "marks right" in lines[0] and lines[2].startswith("| right ")
    latex = invoke("leaderboard", *named, "--format", "latex").splitlines()
    assert latex[0] == r"\begin{tabular}{llrrrr}" and latex[5].startswith("same & 12 & 33.3")


def test_the_comparison_is_paired_within_bags(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "compare.html"
    output = invoke("compare", *(f"{name}={folder}" for name, folder in folders.items()), "--out", out)
    (row,) = json.loads(out.with_suffix(".json").read_text())["captions"]["differences"]
    assert (row["a"], row["b"], row["r1"]["groups"], row["r1"]["samples"]) == ("same", "right", 4, 12)
    found = [one.matches("3") for one in caption_bags.load_all(folders).values()]
    gain = sum(found[1][key]["hit"] - found[0][key]["hit"] for key in found[0]) / 12
    assert row["r1"]["value"] == pytest.approx(gain) and row["sentence"] in output
    assert row["r1"]["low"] < 0 < row["r1"]["high"], "four bags that all differ alike say little of others"
    assert "R@1 of 3: no order of right and same can be claimed" in row["sentence"] and "R@1 of 3" in out.read_text()


def test_boxes_and_captions_make_one_page_and_no_one_table(folders: dict[str, Path], tmp_path: Path) -> None:
    boxes = benchmark(tmp_path / "boxes", ["left", "right"] * 2, EVIL)
    page = invoke("compare", f"boxes={boxes}", f"right={folders['right']}", "--out", tmp_path / "page.html")
    assert "Acc@0.5" in page and "| right " in page
    with pytest.raises(FieldmarkError, match="same holds captions, boxes does not"):
        leaderboard.write({"boxes": boxes, "same": folders["same"]}, "all", "markdown")
    with pytest.raises(FieldmarkError, match="no slices; leave out --slice domain bird"):
        leaderboard.write(folders, "domain bird", "markdown")


def test_runs_of_another_judge_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in folders["same"].iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    table = json.loads((other / "truematch.json").read_text())
    (other / "truematch.json").write_text(json.dumps({**table, "late": True}))
    with pytest.raises(FieldmarkError, match="judged by pocket-judge, word by word, right by pocket-judge"):
        leaderboard.write({"right": folders["right"], "other": other}, "all", "markdown")
