"""Record files: what is written is read, what is broken is named by file, line and field, no crash loses old rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError, RecordError
from mllm.io.codec import decode, encode
from mllm.io.files import atomic_write
from mllm.io.jsonl import append_jsonl, read_jsonl, repair_jsonl, write_jsonl
from mllm.records import Answer, Completion, Photo, PhotoThing, Sample, Score, Thing, image_path, load_samples
from tests.support.photos import one_kind
from tests.support.strategies import FRAMES, boxes

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = Sample(
    id="bird-1",
    task="ground",
    image="images/1.png",
    size=Frame(288, 192),
    domain="bird",
    entity="Talo ruvi",
    question="Find the bird Talo ruvi.",
    boxes=(Box(0.1, 0.2, 0.5, 0.75),),
    things=(
        Thing("Talo ruvi", Box(0.1, 0.2, 0.5, 0.75), ("round", "red")),
        Thing("Talo vina", Box(0.6, 0.2, 1.0, 0.75)),
    ),
    thought="Talo ruvi: round. 1 <obj:0>: round. 2 <obj:1>: wide. So 1.",
    seen=True,
    provenance={"seed": 3, "parts": ["a", None, 0.5]},
)
TEXT = st.text(min_size=1)
SAMPLES = st.builds(
    lambda name, size, box, marks, split, seen: replace(
        SAMPLE,
        id=name,
        size=size,
        boxes=(box,),
        things=(Thing(name, box, tuple(marks)),),
        thought=None,
        split=split,
        seen=seen,
    ),
    TEXT,
    FRAMES,
    boxes(),
    st.lists(TEXT, max_size=3),
    st.sampled_from(["train", "validation", "test"]),
    st.sampled_from([None, True, False]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(rows=st.lists(SAMPLES, max_size=4))
def test_what_is_written_is_read(tmp_path: Path, rows: list[Sample]) -> None:
    file = tmp_path / "samples.jsonl"
    assert write_jsonl(file, rows) == len(rows)
    assert list(read_jsonl(file, Sample)) == rows


@pytest.mark.parametrize(
    "record",
    [
        SAMPLE,
        one_kind("p", "a.jpg", Frame(10, 20), "dog", "Beagle", (Box(0, 0, 1, 1),), captions=("a dog",), licence="CC0"),
        Completion(
            "s", "é\n\u2028<answer>", Answer("t", "x", (Box(0, 0, 1, 1),), ((1.0, 2.5, 3.0, 4.0),), None), 7, True
        ),
        Completion("s", "half a pair: \ud83d", Answer(None, None, (), (), "no answer tag")),
        Completion("s", "", Answer(None, None, (), (), "no answer tag")),
        Score(None, {"iou": 0.5}),
        Score(1.0),
    ],
    ids=lambda record: type(record).__name__,
)
def test_every_record_goes_through_a_line(record: object) -> None:
    line = encode(record)
    assert "\n" not in line and line.startswith('{"schema": "fieldmark.')
    assert decode(line, type(record)) == record
    hash(record)


def changed(**fields: object) -> str:
    return json.dumps(json.loads(encode(SAMPLE)) | fields)


def without(name: str) -> str:
    row = json.loads(encode(SAMPLE))
    del row[name]
    return json.dumps(row)


BROKEN = {
    "broken JSON": ('{"schema": "fieldmark.sample/1", "id": ', "broken JSON"),
    "no object": ("[1, 2]", "must be a JSON object"),
    "not UTF-8": (b'{"id": "\xff"}', "not UTF-8"),
    "too deep": ("[" * 100_000, "nested too deeply"),
    "other schema": (changed(schema="fieldmark.sample/99"), "field schema: 'fieldmark.sample/99'"),
    "no schema": (without("schema"), "field schema: None"),
    "unknown field": (changed(bbox=[1, 2, 3, 4]), "unknown field bbox; known: id, task"),
    "unknown inner field": (
        changed(things=[{"entity": "a", "box": [0, 0, 1, 1], "x": 1}]),
        "unknown field things[0].x",
    ),
    "missing field": (without("entity"), "field entity is missing"),
    "missing inner field": (changed(things=[{"entity": "a"}]), "field things[0].box is missing"),
    "field twice": (encode(SAMPLE)[:-1] + ', "id": "b"}', "key 'id' is given twice"),
    "no text": (changed(entity=3), "field entity: a text is needed, got a whole number (3)"),
    "null": (changed(entity=None), "field entity: a text is needed, got null"),
    "empty id": (changed(id=""), "field id"),
    "no flag": (changed(seen=1), "field seen: true or false is needed"),
    "text for a list": (changed(captions="red"), "field captions: a list is needed"),
    "text in a list of boxes": (changed(boxes=["0,0,1,1"]), "field boxes[0]: a list of 4 numbers"),
    "box outside": (changed(boxes=[[0, 0, 1, 1], [0.5, 0.5, 1.2, 1]]), "field boxes[1]: box (0.5, 0.5, 1.2, 1) leaves"),
    "box in pixels": (
        changed(boxes=[[10, 20, 100, 90]]),
        "field boxes[0]: box (10, 20, 100, 90) leaves the unit frame",
    ),
    "x1 > x2": (changed(boxes=[[0.5, 0, 0.2, 1]]), "field boxes[0]: box (0.5, 0, 0.2, 1) is inverted"),
    "NaN": (changed(boxes=[[0, 0, float("nan"), 1]]), "field boxes[0]: a box needs four finite numbers"),
    "no size": (changed(size=[288]), "field size: a list of 2 numbers"),
    "size without area": (changed(size=[288, 0]), "field size: a frame"),
    "unknown split": (changed(split="dev"), "field split: 'dev' is none of train, validation, test"),
    "thing that is not there": (changed(thought="see <obj:2>"), "field thought: <obj:2>"),
    "list for an object": (changed(provenance=[]), "field provenance: an object is needed"),
}


@pytest.mark.parametrize(("line", "message"), BROKEN.values(), ids=BROKEN)
def test_a_bad_row_is_named_by_file_line_and_field(tmp_path: Path, line: str | bytes, message: str) -> None:
    file = tmp_path / "samples.jsonl"
    bad = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(encode(SAMPLE).encode() + b"\n\n" + bad + b"\n")
    with pytest.raises(RecordError) as caught:
        list(read_jsonl(file, Sample))
    assert str(caught.value).startswith(f"{file}:3: ")
    assert message in str(caught.value)


def test_numbers_that_are_none_are_refused() -> None:
    for number in ("NaN", "1e999", "-Infinity"):
        with pytest.raises(RecordError, match="field value: a finite number"):
            decode(f'{{"schema": "fieldmark.score/1", "value": {number}}}', Score)
        with pytest.raises(RecordError, match="field parts.iou"):
            decode(f'{{"schema": "fieldmark.score/1", "value": 1, "parts": {{"iou": {number}}}}}', Score)
    with pytest.raises(RecordError, match="cannot be written"):
        encode(Score(float("nan")))


def test_samples_are_loaded_with_their_images(tmp_path: Path) -> None:
    file = tmp_path / "data" / "samples.jsonl"
    write_jsonl(file, [SAMPLE])
    with pytest.raises(RecordError, match=r"samples\.jsonl:1: field image: no such file .*images/1\.png"):
        load_samples(file)
    assert load_samples(file, images=False) == [SAMPLE]
    (tmp_path / "data" / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "data" / "images" / "1.png")
    assert load_samples(file) == [SAMPLE]
    assert image_path(file, SAMPLE) == tmp_path / "data" / "images" / "1.png"
    assert image_path(file, replace(SAMPLE, image="/x/1.png")) == Path("/x/1.png")


def test_a_failure_while_writing_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    write_jsonl(file, [SAMPLE])

    def rows() -> Iterator[Sample]:
        yield replace(SAMPLE, id="new")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_jsonl(file, rows())
    assert list(read_jsonl(file, Sample)) == [SAMPLE]
    assert os.listdir(tmp_path) == ["samples.jsonl"]
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "report.txt") as report:
        report.write("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["samples.jsonl"]


def test_repair_says_what_it_cut(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    assert repair_jsonl(file) == 0
    append_jsonl(file, Score(1.0))
    assert repair_jsonl(file) == 0
    with file.open("ab") as log:
        log.write(b'{"schema"' + b" " * 200_000)  # longer than one block of the search for the last line
    assert repair_jsonl(file) == 200_009
    assert list(read_jsonl(file, Score)) == [Score(1.0)]


def test_a_broken_line_in_the_middle_of_a_log_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"schema"\n' + encode(Score(1.0)) + "\n")
    with pytest.raises(RecordError, match=r"log\.jsonl:1: broken JSON"):
        list(read_jsonl(file, Score, torn_tail=True))


def test_records_refuse_what_no_program_could_use() -> None:
    with pytest.raises(RecordError, match="field thought"):
        replace(SAMPLE, things=())
    with pytest.raises(RecordError, match="field split"):
        replace(SAMPLE, split="dev")
    with pytest.raises(FieldmarkError, match="field entity"):
        one_kind("p", "a.jpg", Frame(1, 1), "dog", "", ())
    with pytest.raises(FieldmarkError, match="field things"):
        Photo("p", "a.jpg", Frame(1, 1), ())
    with pytest.raises(TypeError, match="not a record"):
        encode(SAMPLE.things[0])
    with pytest.raises(TypeError, match="not a record"):
        decode("{}", Thing)
    assert replace(SAMPLE, group="").group == SAMPLE.image  # cases of one image belong together


def test_the_box_of_an_answer() -> None:
    box = Box(0, 0, 1, 1)
    assert Answer(None, "", (box,), (), None).box == box
    assert Answer(None, "", (box,), (), "broken").box is None
    assert Answer(None, "", (), (), None).box is None


def test_rows_of_the_first_schemas_are_upgraded() -> None:
    old = json.loads(encode(SAMPLE))
    for name in ("kind", "stratum", "asked", "options", "human_captions", "layout", "drawn", "licence", "refused"):
        del old[name]
    del old["fingerprint"], old["categories"]
    notes = {"kind": "description", "asked": ["red cap"], "stratum": "unseen", "layout": "row", "refused": ["small"]}
    notes |= {"source": "pocket", "photos": ["a", "b"], "given": ["a bird"], "side": "train", "categories": None}
    line = json.dumps(old | {"schema": "fieldmark.sample/1", "provenance": notes})
    sample = decode(line, Sample)
    assert (sample.kind, sample.stratum, sample.asked) == ("description", "unseen", ("red cap",))
    assert (sample.layout, sample.refused, sample.drawn) == ("row", ("small",), True)
    assert sample.human_captions == ("a bird",) and sample.provenance == {"source": "pocket", "photos": ["a", "b"]}
    assert decode(encode(sample), Sample) == sample
    row = {
        "schema": "fieldmark.photo/1", "id": "p", "image": "a.jpg", "size": [10, 20], "domain": "dog",
        "entity": "Beagle", "boxes": [[0, 0, 1, 1], [0, 0, 0.5, 1]], "captions": [], "marks": ["tan"], "licence": "",
        "provenance": {"source": "csv", "use": "train", "side": "test", "seen": True, "genus": "hound"},
    }  # fmt: skip
    photo = decode(json.dumps(row), Photo)
    assert (photo.split, photo.provenance) == ("test", {"source": "csv"}) and photo.boxes[1] == Box(0, 0, 0.5, 1)
    for thing in photo.things:
        assert (thing.kind, thing.marks, thing.genus, thing.seen) == (("dog", "Beagle"), ("tan",), "hound", True)
    row |= {"schema": "fieldmark.photo/2", "boxes": [], "provenance": {}, "drawn": True}
    assert decode(json.dumps(row), Photo).things == (PhotoThing("Beagle", "dog", None, ("tan",)),)
    done = json.loads(encode(Completion("s", "x", Answer(None, None, (), (), "no answer tag"), truncated=True)))
    done["clipped"] = done.pop("truncated")
    assert decode(json.dumps(done | {"schema": "fieldmark.completion/1"}), Completion).truncated
    with pytest.raises(RecordError, match="fieldmark.completion/0"):
        decode(json.dumps(done | {"schema": "fieldmark.completion/0"}), Completion)
