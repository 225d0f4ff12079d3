"""ms-swift rows: a row asks for one thing, and every thing has a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mllm.errors import FieldmarkError
from mllm.records import Sample
from tests.data.formats.test_formats import read


def swift_row(folder: Path, question: str, answer: str, refs: list[object], boxes: int) -> Sample:
    Image.new("RGB", (500, 250)).save(folder / "k.png")
    turns = [{"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": answer}]
    objects = {"ref": refs, "bbox": [[10 * k, 20, 300, 200] for k in range(boxes)]}
    (folder / "s.jsonl").write_text(json.dumps({"messages": turns, "images": ["k.png"], "objects": objects}))
    (sample,) = read("swift", folder / "s.jsonl")
    return sample


@pytest.mark.parametrize(
    "question, answer",
    [
        ("Find all.", "<ref-object><bbox>, <ref-object><bbox>"),
        ("Find <ref-object> and <ref-object>.", "<bbox><bbox>"),
        ("Find the cat and the dog.", "<bbox><bbox>"),
        ("Find all.", "<think>two</think><ref-object><bbox>, <ref-object><bbox>"),
    ],
)
def test_swift_boxes_of_several_things_are_no_sample(tmp_path: Path, question: str, answer: str) -> None:
    with pytest.raises(FieldmarkError, match=r"s.jsonl:1: field objects.ref: boxes of several things \(cat, dog\)"):
        swift_row(tmp_path, question, answer, ["cat", "dog"], 2)
    same = swift_row(tmp_path, question, answer, ["cat", "cat"], 2)
    assert same.entity == "cat" and len(same.boxes) == 2


def test_swift_names_in_a_thought_are_not_asked_for(tmp_path: Path) -> None:
    thought = "<think>The <ref-object> is at <bbox>.</think><bbox>"
    sample = swift_row(tmp_path, "Find the <ref-object>.", thought, ["cat", "dog"], 2)
    assert sample.entity == "cat" and len(sample.boxes) == 1 and sample.thought == "The dog is at <obj:0>."


@pytest.mark.parametrize("name", [None, "", "  ", 3, ["cat"]])
def test_swift_names_are_texts(tmp_path: Path, name: object) -> None:
    with pytest.raises(FieldmarkError, match=r"s.jsonl:1: field objects.ref\[1\]: a name is needed"):
        swift_row(tmp_path, "Find the <ref-object>.", "<bbox>", ["cat", name], 1)
