"""KVG-Bench as published: its rule, quirk by quirk, and its parquet; a bad file is an error that says where."""

from __future__ import annotations

import gzip
import io
import json
import time
from pathlib import Path

import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.errors import RecordError
from mllm.evaluation import kvg_published
from mllm.io.images import open_image
from tests.support.official import parquet

TABLE = Path(__file__).parents[1] / "support/kvg_published.jsonl.gz"
GOLD = Box(0.01, 0.02, 0.3, 0.4)
READ_AS = [
    ("<answer>(10,20),(300,400)</answer>", (10, 20, 300, 400)),
    ("<think>x</think><answer>(77.0,348.0),(289.0,630.0)</answer>", (77, 348, 289, 630)),
    ("thinking of (10,20),(300,400) all along", (10, 20, 300, 400)),  # no tag: the whole text is read
    ("<think>(1,2),(3,4)</think><answer>\n(10,20),(300,400)\n</answer>", (10, 20, 300, 400)),  # two lines: same
    ("<answer>(1,2),(3,4) or (10,20),(300,400)</answer>", (10, 20, 300, 400)),  # the last of two
    ("<answer>(10,20),(300,400)</answer> <answer>(5,5),(6,6)</answer>", (10, 20, 300, 400)),  # the first tag
    ('<answer>```json\n[{"bbox_2d": [10, 20, 300, 400]}]\n```</answer>', (10, 20, 300, 400)),
    ('[{"bbox_2d": [10, 20, 300, 400]}]', (10, 20, 300, 400)),
    ("<answer>[[10,20,300,400]]</answer>", (10, 20, 300, 400)),
    ("<answer>(10, 20, 300, 400)</answer>", (10, 20, 300, 400)),
    ("<answer>(10, 20), (300, 400)</answer>", (10, 20, 300, 400)),
    ('"bbox_2d":[10,20,300,400]', None),  # a list without blanks is not read
    ("<answer>[10,20,300,400]</answer>", None),
    ("<answer>(10,20,300,400)</answer>", None),
    ("<answer>left of the (red, blue) and (round, flat) one</answer>", None),
    ("<answer>nothing</answer>", None),
    ("", None),
    ("<answer>(0.1,0.2),(0.5,0.6)</answer>", (100, 200, 500, 600)),  # shares, since they sum to less than 4
    ("<answer>(0,0),(1,2)</answer>", (0, 0, 1000, 2000)),  # so do these, and nothing is clipped
    ("<answer>(300,400),(10,20)</answer>", (300, 400, 10, 20)),  # nor put in order
]


@pytest.mark.parametrize(("text", "numbers"), READ_AS)
def test_published_rule(text, numbers):
    found, form = kvg_published.published_numbers(text)
    assert found == (numbers or (0, 0, 0, 0)) and (numbers is None or form is not None)


def test_every_text_is_read_as_the_official_scorers_read_it():
    """Their numbers, pattern and IoU on 3,000 texts, made by bench/published_boxes.py from their own files."""
    lines = gzip.decompress(TABLE.read_bytes()).decode().splitlines()
    forms, differ, hits = (None, *kvg_published.PUBLISHED_FORMS), 0, 0
    for text, gold, *theirs in map(json.loads, lines):
        ious = kvg_published.published_ious(text, Box.from_xyxy(gold, kvg_published.FRAME))
        ours = []
        for release, iou in zip(kvg_published.RULES.values(), ious.values(), strict=True):
            numbers, form = kvg_published.published_numbers(text, release)
            ours.append([list(numbers), forms.index(form), iou])
        assert str(ours) == str(theirs), text  # str: nan is nan
        differ += ours[0] != ours[1]
        hits += max(ious.values()) >= 0.5
    assert len(lines) == 3000 and differ > 250 and hits > 100


def test_published_rule_counts_one_half_and_never_fails():
    assert kvg_published.published_ious("(10,20),(300,400)", GOLD)["published"] == 1
    assert kvg_published.published_ious("(300,400),(10,20)", GOLD)["published"] == 0
    for rubbish in ("(" * 200, "[" * 200 + "]" * 200, "(,),(,)", "\0", "(1e9,1),(2,3)", "(1e99,1),(2,3)"):
        assert all(0 <= iou <= 1 for iou in kvg_published.published_ious(rubbish, GOLD).values())


def test_published_rule_is_quick_on_hostile_text():
    started = time.process_time()
    for text in (
        "(a,b,c" * 3000,
        "(1,2)" + "(a" * 9000,
        "(" * 9000 + ",)" * 5,
        "[1, " * 5000,
        "[" * 9000,
        "(1, 2)" * 4000 + "(",
        "(" + "1" * 90_000,
        "1),(" * 30_000,
        "<answer>(1," * 9000,
        "So the answer is (1,2),(" * 9000,
        "(,),(,)" * 20_000,
        "```json" * 20_000,
    ):
        kvg_published.published_numbers(text)
        kvg_published.published_numbers(text, "deepperception")
    assert time.process_time() - started < 10


def test_official_photos_with_an_exif_orientation_keep_their_thing_in_the_box(tmp_path):
    """The gold box is on the image as stored; the image is shown turned, and so is the box."""
    image = Image.new("RGB", (120, 80), "white")
    image.paste("red", (12, 8, 60, 24))
    for orientation in range(1, 9):
        data, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        image.save(data, "PNG", exif=exif)
        change = {"image": {"bytes": data.getvalue(), "path": None}}
        answer = "<|object_ref_start|>x<|object_ref_end|><|box_start|>(100,100),(500,300)<|box_end|>"
        file = parquet(tmp_path / "k.parquet", answer=answer, **change)
        sample = kvg_published.read_parquet(file, tmp_path / "images")[2]
        x1, y1, x2, y2 = sample.boxes[0].to_xyxy(sample.size)
        thing = open_image(sample.image).crop((round(x1), round(y1), round(x2), round(y2)))
        assert thing.getcolors() == [(48 * 16, (255, 0, 0))], orientation


@pytest.mark.parametrize("box", ["(9,9),(5,5)", "(5,9),(5,20)", "(0,0),(1200,5)", "(0.5,0),(9,9)", "nowhere"])
def test_one_bad_gold_box_leaves_out_its_own_case_only(tmp_path, box):
    answer = f"<|object_ref_start|>x<|object_ref_end|><|box_start|>{box}<|box_end|>"
    file, left_out = parquet(tmp_path / "k.parquet", answer=answer), []
    samples = kvg_published.read_parquet(file, tmp_path / "images", left_out=left_out)
    assert [sample.id for sample in samples] == ["bird/0", "bird/1"]
    assert len(left_out) == 1 and "row 2 (dog/0): field answer" in left_out[0]


def test_official_file(tmp_path):
    samples = kvg_published.read_parquet(parquet(tmp_path / "kvg-bench.parquet"), tmp_path / "images")
    assert [s.entity for s in samples] == ["House Wren", "Marsh Wren", "Whippet"]
    assert samples[0].group == samples[1].group != samples[2].group and len(list((tmp_path / "images").iterdir())) == 2
    assert samples[1].boxes == (Box(0.5, 0, 1, 1),) and samples[0].size == Frame(120, 80)
    assert [len(s.things) for s in samples] == [2, 2, 1] and samples[0].seen is None
    assert len(kvg_published.read_parquet(tmp_path / "kvg-bench.parquet", tmp_path / "images", limit=1)) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question_id": "bird/0"}, "'bird/0' occurs twice"),
        ({"answer": "no box"}, r"row 2 \(dog/0\): field answer"),
        ({"answer": "<|object_ref_start|>x<|object_ref_end|><|box_start|>(9,9),(5,5)<|box_end|>"}, "inverted"),
        ({"image": {"bytes": b"", "path": None}}, "row 2: field image.bytes: .* at least 1 byte"),
        ({"image": {"bytes": b"<html>", "path": None}}, r"row 2 \(dog/0\): field image: its bytes: not an image"),
        ({"image": {"bytes": b"GIF89a\1", "path": None}}, r"row 2 \(dog/0\): field image: its bytes"),
        ({"question_id": ""}, "row 2: field question_id"),
    ],
)
def test_bad_official_rows(tmp_path, change, says):
    with pytest.raises(RecordError, match=says):
        kvg_published.read_parquet(parquet(tmp_path / "k.parquet", **change), tmp_path / "images")


def test_files_that_are_none(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(RecordError, match="no such file"):
        kvg_published.read_parquet(tmp_path / "absent.parquet", tmp_path)
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(RecordError, match="not a complete parquet file"):
        kvg_published.read_parquet(tmp_path / "text.parquet", tmp_path)
    whole = parquet(tmp_path / "k.parquet").read_bytes()
    for place in (4, len(whole) - 60):  # in the first page, in the footer
        (tmp_path / "bad.parquet").write_bytes(whole[:place] + b"\xff" * 40 + whole[place + 40 :])
        with pytest.raises(RecordError, match="bad.parquet"):
            kvg_published.read_parquet(tmp_path / "bad.parquet", tmp_path)
    pq.write_table(pa.table({name: ["q"] for name in kvg_published.COLUMNS}), tmp_path / "texts.parquet")
    with pytest.raises(RecordError, match="texts.parquet: row 0: field image: .* got 'q'"):
        kvg_published.read_parquet(tmp_path / "texts.parquet", tmp_path)
    pq.write_table(pa.table({"question": ["q"]}), tmp_path / "other.parquet")
    with pytest.raises(RecordError, match="column question_id is missing"):
        kvg_published.read_parquet(tmp_path / "other.parquet", tmp_path)
