"""eval/refcoco.py: absent things, both ways to count a tie, categories; on rows made here and on real annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from eval import refcoco
from mllm.errors import FieldmarkError
from mllm.evaluation import runs
from mllm.io.jsonl import write_jsonl
from mllm.records import Answer, Completion

BLANK = Answer(None, None, (), (), None)


def rows(folder: Path) -> Path:
    Image.new("RGB", (200, 100)).save(folder / "a.png")
    Image.new("RGB", (200, 100)).save(folder / "b.png")

    def row(image: str, solution: list[float] | None, hops: str) -> dict:
        info = {"empty_case": solution is None, "hops": hops, "type": ["exclude", "verb"]}
        return {"image": image, "problem": f"the {hops} cat", "solution": solution, "categories": info}

    half, whole = [0, 0, 100, 100], [0, 0, 200, 100]
    path = folder / "ref.json"
    path.write_text(
        json.dumps(
            [row("a.png", half, "1"), row("a.png", whole, "2"), row("b.png", None, "2"), row("b.png", None, "2")]
        )
    )
    return path


def answered(folder: Path, pocket_folder: Path, file: Path) -> Path:
    """Ask a random model, then put in answers whose scores are known."""
    out = folder / "out"
    refcoco.main(
        ["--model", str(pocket_folder), "--annotations", str(file), "--out", str(out), "--max-new-tokens", "1"]
    )
    _, asked, _ = runs.read(out)
    texts = ["(0,0),(50,100)", "(0,0),(50,100)", "none", "(0,0),(50,100)"]  # right; a tie; right; a box for nothing
    output = [Completion(s.id, f"<answer>{t}</answer>", BLANK) for s, t in zip(asked, texts, strict=True)]
    write_jsonl(out / "outputs.jsonl", output)
    return out


def test_absent_things_ties_and_categories(tmp_path, pocket_folder, capsys) -> None:
    out = answered(tmp_path, pocket_folder, rows(tmp_path))
    refcoco.main(["--rescore", "--out", str(out)])
    table = json.loads((out / "scores.json").read_text())
    acc = {name: row["acc"]["value"] for name, row in table["slices"].items()}
    assert (acc["all"], acc["present"], acc["absent"]) == (0.75, 1.0, 0.5)
    assert table["above_half"]["value"] == 0.5  # the tie does not count for VLM-R1
    by = {name: (row["samples"], row["acc"]["value"]) for name, row in table["categories"].items()}
    assert by["hops 1"] == (1, 1.0) and by["hops 2"] == (3, pytest.approx(2 / 3)) and by["type verb"] == (4, 0.75)
    assert "IoU > 0.5 as VLM-R1 counts: 50.0" in capsys.readouterr().out


def test_images_that_are_not_there(tmp_path, pocket_folder) -> None:
    file = rows(tmp_path)
    flags = ["--model", str(pocket_folder), "--annotations", str(file), "--images", str(tmp_path / "coco")]
    with pytest.raises(FieldmarkError, match="ref.json:1: field image: no such file .*--images"):
        refcoco.main([*flags, "--out", str(tmp_path / "out")])
    with pytest.raises(FieldmarkError, match="--annotations FILE"):
        refcoco.main([])


def test_real_annotations_of_real_photos(shared_data, tmp_path, pocket_folder) -> None:
    """The free COCO photos with their human expressions, two of which fit nothing."""
    folder = shared_data / "coco_ccby_sample"
    there = {path.name: path for path in (folder / "images").rglob("*.jpg")}
    found = json.loads((folder / "referring_expressions.json").read_text())
    for row in found:
        row["image"] = str(there[Path(row["image"]).name])
    (tmp_path / "ref.json").write_text(json.dumps(found))
    out = tmp_path / "out"
    flags = ["--model", str(pocket_folder), "--annotations", str(tmp_path / "ref.json"), "--out", str(out)]
    refcoco.main([*flags, "--max-new-tokens", "1", "--batch-size", "16"])
    table = json.loads((out / "scores.json").read_text())
    assert table["slices"]["absent"]["samples"] == 2 and table["slices"]["all"]["samples"] == len(found) == 14
    assert table["slices"]["all"]["acc"]["value"] == 0  # one token says nothing
