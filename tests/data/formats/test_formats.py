"""Other tools' files: numbers survive reading and writing, both ways, and errors name file, line and field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.data import formats
from mllm.errors import FieldmarkError, UnknownNameError
from mllm.io.jsonl import write_jsonl
from mllm.models import families
from mllm.models.families import whole_numbers
from mllm.records import Sample, Thing, load_samples
from tests.support.command_line import fieldmark
from tests.support.strategies import FRAMES, boxes

QWEN2 = families.load("qwen2_vl")
SIZE = Frame(427, 333)
LEFT, RIGHT = Box.from_xyxy((342.29 - 300, 36.85, 92.62, 265.01), SIZE), Box(1 / 3, 0.123456789, 0.7, 2 / 3)


def samples(folder: Path) -> list[Sample]:
    """One thing with a thought, all of several, one that is not there."""
    Image.new("RGB", (427, 333)).save(folder / "a.png")
    things = (Thing("wren", LEFT), Thing("owl", RIGHT))
    thought = "wren: small. 1 <obj:0>: small. 2 <obj:1>: large. So 1."
    one = Sample(
        id="one", task="ground", image="a.png", size=SIZE, domain="bird", entity="wren", question="Find the bird wren.",
        boxes=(LEFT,), things=things, thought=thought,
    )  # fmt: skip
    every = replace(one, id="all", task="ground_all", boxes=(LEFT, RIGHT), thought=None)
    absent = replace(one, id="none", entity="kite", question="Find the bird kite.", boxes=(), thought=None)
    return [one, every, absent]


@pytest.fixture(params=formats.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def read(name: str, path: Path) -> list[Sample]:
    return list(formats.load(name).read(path, QWEN2))


def test_the_formats_there_are() -> None:
    assert formats.names() == ("sharegpt", "swift", "vlm_r1")
    with pytest.raises(UnknownNameError, match="unknown format 'shargpt'. Did you mean 'sharegpt'"):
        formats.load("shargpt")


@pytest.mark.parametrize("style", ["direct", "think"])
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_boxes_come_back_to_the_last_digit(tmp_path: Path, name: str, style: str, ending: str) -> None:
    """samples -> file -> samples -> file: the same boxes and the same file."""
    given_ = [replace(s, thought=None) if style == "direct" else s for s in samples(tmp_path)]
    given_ = given_[:1] if style == "think" and name == "sharegpt" else given_  # a thought is needed there
    first, second = tmp_path / f"first.{ending}", tmp_path / f"second.{ending}"
    assert formats.load(name).write(first, given_, QWEN2, style) == len(given_)
    back = read(name, first)
    assert [(s.id, s.task, s.entity, s.boxes, s.size) for s in back] == [
        (s.id, s.task, s.entity, s.boxes, s.size) if name != "vlm_r1" or ending == "json" else
        (s.id, s.task, b.entity, s.boxes, s.size) for s, b in zip(given_, back, strict=True)
    ]  # fmt: skip
    if name == "swift":
        back = [replace(s, question=g.question) for s, g in zip(back, given_, strict=True)]  # without the style's words
    formats.load(name).write(second, back, QWEN2, style)
    if name != "sharegpt":
        assert second.read_text() == first.read_text()


def test_a_thought_survives(tmp_path: Path) -> None:
    (one, *_) = samples(tmp_path)
    for name in ("sharegpt", "swift"):
        formats.load(name).write(tmp_path / "x.jsonl", [one], QWEN2, "think")
        (back,) = read(name, tmp_path / "x.jsonl")
        assert back.thought == one.thought and [t.box for t in back.things] == [LEFT, RIGHT]


@given(boxes(1e-3), FRAMES)
def test_the_shortest_numbers_are_read_back_as_the_same_box(box: Box, frame: Frame) -> None:
    numbers = formats.exact(box, frame)
    for number, share, side in zip(
        numbers, (box.x1, box.y1, box.x2, box.y2), (frame.width, frame.height) * 2, strict=True
    ):
        assert number / side == pytest.approx(share, rel=3e-16, abs=1e-300)  # below, floats have no digits to keep


def test_written_pixels_are_as_short_as_they_were() -> None:
    numbers = [342.29, 236.85, 392.62, 265.01]
    assert formats.exact(Box.from_xyxy(numbers, Frame(427, 640)), Frame(427, 640)) == numbers
    assert formats.exact(Box.from_xyxy([10, 20, 30, 40], Frame(427, 640)), Frame(427, 640)) == [10, 20, 30, 40]


def kvg(folder: Path, **change: Any) -> Path:
    """Two rows as KVG-KARL writes them: thousandths, object tags, boxes in the thought."""
    Image.new("RGB", (500, 250)).save(folder / "k.png")
    question = (
        "<image>Find and give the bounding box of <|object_ref_start|>Boeing 747<|object_ref_end|>  Output the "
        "thinking process in <think> </think> and final answer (bounding box) in <answer> </answer> tags."
    )
    answer = "<think>1. Boeing 747 (10,20),(300,400): hump. 2. (500,100),(900,800): none.</think>"
    answer += "\n<answer>(10,20),(300,400)</answer>"
    row = {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "images": ["k.png"],
    } | change
    old = {
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "<image>Where is the cat?"},
            {
                "from": "gpt",
                "value": "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(519,608),(986,768)<|box_end|>",
            },
        ],
        "images": ["k.png"],
    }
    path = folder / "kvg.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in (old, row)) + "\n")
    return path


def test_kvg_karl_loads_with_its_numbers(tmp_path: Path) -> None:
    cat, boeing = read("sharegpt", kvg(tmp_path))
    assert (
        whole_numbers(cat.boxes[0], Frame(1000, 1000)) == (519, 608, 986, 768) and cat.question == "Where is the cat?"
    )
    assert boeing.entity == "Boeing 747" and boeing.boxes == (Box(0.01, 0.02, 0.3, 0.4),)
    assert boeing.thought == "1. Boeing 747 <obj:0>: hump. 2. <obj:1>: none."
    assert [thing.entity for thing in boeing.things] == ["Boeing 747", ""]
    out = tmp_path / "again.jsonl"
    formats.load("sharegpt").write(out, [boeing], QWEN2, "think")
    again = json.loads(out.read_text())["messages"][1]["content"]
    assert QWEN2.read(again) == [[10, 20, 300, 400], [500, 100, 900, 800], [10, 20, 300, 400]]


def test_an_edited_text_beside_its_digits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    formats.load("sharegpt").write(path, samples(tmp_path)[:1], QWEN2, "direct")
    path.write_text(path.read_text().replace("<answer><|box_start|>(99", "<answer><|box_start|>(98"))
    with pytest.raises(FieldmarkError, match="x.jsonl:1: field fieldmark: its boxes are not those of the text"):
        read("sharegpt", path)


def test_swift_pixels_and_thousandths(tmp_path: Path) -> None:
    Image.new("RGB", (500, 250)).save(tmp_path / "k.png")

    def row(kind: str | None, numbers: list[float]) -> tuple[Box, ...]:
        turns = [("user", "<image>Find the <ref-object>."), ("assistant", "<bbox>")]
        objects = {"ref": ["cat"], "bbox": [numbers]} | ({"bbox_type": kind} if kind else {})
        data = {"messages": [{"role": r, "content": c} for r, c in turns], "images": ["k.png"], "objects": objects}
        (tmp_path / "s.jsonl").write_text(json.dumps(data))
        (sample,) = read("swift", tmp_path / "s.jsonl")
        assert sample.question == "Find the cat." and sample.entity == "cat"
        return sample.boxes

    expected = (Box(0.1, 0.2, 0.5, 0.6),)
    assert row(None, [50, 50, 250, 150]) == row("real", [50, 50, 250, 150]) == expected
    assert row("norm1000", [100, 200, 500, 600]) == row("norm1", [0.1, 0.2, 0.5, 0.6]) == expected


BAD = [
    ("sharegpt", {"images": []}, r"kvg.jsonl:2: field images: List should have at least 1 item"),
    ("sharegpt", {"images": ["gone.png"]}, r"kvg.jsonl:2: field images: .*gone.png"),
    ("sharegpt", {"messages": []}, r"kvg.jsonl:2: field messages: one turn of the user"),
    (
        "sharegpt",
        {
            "messages": [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": "<answer>(9,9),(1,1)</answer>"},
            ]
        },
        r"kvg.jsonl:2: field messages: the answer cannot be read: box inverted or empty",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), BAD)
def test_a_bad_row_is_named(tmp_path: Path, name: str, change: dict, message: str) -> None:
    with pytest.raises(FieldmarkError, match=message):
        read(name, kvg(tmp_path, **change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "x.jsonl:1: broken JSON at column 2"),
        ("[1]", "x.jsonl:1: an object is needed"),
        ('{"image": "a.png", "image": "b.png"}', "x.jsonl:1: broken JSON at column 1: key 'image' is given twice"),
        ('{"image": "a.png", "problem": "?"}', "x.jsonl:1: field solution: is missing"),
        ('{"image": "a.png", "problem": "?", "solution": [1, 2, 3]}', "x.jsonl:1: field solution: a box needs four"),
        ('{"image": "a.png", "problem": "?", "solution": [0, 0, 500, 9]}', "field solution: .*leaves its frame"),
        ('{"image": "a.png", "problem": 3, "solution": null}', "field problem: Input should be a valid string, got 3"),
        ('{"image": "b.png", "problem": "?", "solution": null}', "field image: .*b.png"),
        (
            '{"image": "a.png", "conversations": [{"value": "?"}]}',
            "field conversations: List should have at least 2 items",
        ),
        (
            '{"image": "a.png", "conversations": [{"value": "?"}, {"value": "left"}]}',
            r"field conversations\[1\].value: a JSON list",
        ),
    ],
)
def test_bad_referring_expressions_are_named(tmp_path: Path, text: str, message: str) -> None:
    samples(tmp_path)
    (tmp_path / "x.jsonl").write_text(text + "\n")
    with pytest.raises(FieldmarkError, match=message):
        read("vlm_r1", tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("file", "count", "absent"),
    [
        ("refcocos_test.json", 173, 16),
        ("results/refcocos_test.json", 506, 25),
        ("results/refcocos_test_complex.json", 412, 15),
    ],
)
def test_real_referring_expressions(shared_data: Path, tmp_path: Path, file: str, count: int, absent: int) -> None:
    """All of them are read; pixels and the file's own thousandths agree; what is written again has the same numbers."""
    path = shared_data / "refcocos_annotations" / file
    found, rows = read("vlm_r1", path), json.loads(path.read_text())
    assert len(found) == count and sum(not sample.boxes for sample in found) == absent
    for sample, row in zip(found, rows, strict=True):
        assert bool(sample.boxes) == (not row["categories"]["empty_case"])
        if sample.boxes:
            x1, y1, x2, y2 = sample.boxes[0].to_xyxy(Frame(1000, 1000))
            for number, printed in zip((x1, y1, x2, y2), row["normalized_solution"], strict=True):
                assert abs(number - printed) <= 1
    formats.load("vlm_r1").write(tmp_path / "again.json", found, QWEN2, "direct")
    again = json.loads((tmp_path / "again.json").read_text())
    for new, old in zip(again, rows, strict=True):  # 223.65 for 223.64999999999998: the shorter of two for one box
        assert new["solution"] == (None if old["solution"] is None else pytest.approx(old["solution"], abs=1e-12))
    for new, sample in zip(read("vlm_r1", tmp_path / "again.json"), found, strict=True):
        assert new.boxes == sample.boxes


def test_the_command_goes_there_and_back(tmp_path: Path) -> None:
    given_ = samples(tmp_path)
    write_jsonl(tmp_path / "samples.jsonl", given_)
    (tmp_path / "out").mkdir()

    def convert(*words: str) -> str:
        done = fieldmark(["convert", *words])
        assert done.exit_code == 0, done.output
        return done.output

    there, back = str(tmp_path / "out" / "swift.jsonl"), str(tmp_path / "back.jsonl")
    output = convert(str(tmp_path / "samples.jsonl"), there, "--to", "swift")
    assert "3 rows, 1 of them about things that are not in the image" in output
    convert(there, back, "--from", "swift", "--domain", "bird", "--split", "test")
    found = load_samples(back)
    assert [(s.boxes, s.image, s.domain, s.split) for s in found] == [
        (s.boxes, "a.png", "bird", "test") for s in given_
    ]
