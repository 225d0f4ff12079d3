"""TrueMatch, RD100, ImageCoDe and FineCapEval: right captions find, wrong ones do not, ties are shared, files are
checked."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pytest

from eval import finecapeval, imagecode, random_distractors, truematch
from mllm.boxes import Box, Frame
from mllm.data import caption_stats
from mllm.data.bags import Bag
from mllm.errors import FieldmarkError
from mllm.io.jsonl import write_jsonl
from mllm.metrics import retrieval
from mllm.models import encoders
from mllm.records import Answer, Completion, Sample, Thing
from tests.support.encoders import COLOURS, colour_clip, paint

RIGHT = {colour: f"A {colour} bird." for colour in COLOURS}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(colour_clip(tmp_path_factory.mktemp("judge"), seed=1))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    paint(folder, *COLOURS)
    return folder


def write(file: Path, table: object) -> Path:
    file.write_text(json.dumps(table))
    return file


def coco(folder: Path) -> dict[str, str]:
    """The eight images under COCO's names, four of each part; id -> colour."""
    ids = {}
    for number, colour in enumerate(COLOURS, 1):
        (made,) = paint(folder, colour)
        made.rename(folder / f"COCO_{'val' if number % 2 else 'train'}2014_{number:012d}.jpg.png")
        (folder / f"COCO_{'val' if number % 2 else 'train'}2014_{number:012d}.jpg.png").rename(
            folder / f"COCO_{'val' if number % 2 else 'train'}2014_{number:012d}.jpg"
        )
        ids[str(number)] = colour
    return ids


@pytest.mark.ci
def test_truematch_reads_the_published_bags(tmp_path: Path, judge: str, capsys: pytest.CaptureFixture[str]) -> None:
    ids = coco(tmp_path)
    write(tmp_path / "3.json", [[1, 2, 3], [4, 5, 6]])
    write(tmp_path / "5.json", [[1, 2, 3, 4, 5]])
    captions = {number: RIGHT[colour] for number, colour in ids.items()}
    captions["2"] = RIGHT[ids["1"]]  # one of six in bags of three, one of five in the bag of five
    info = ["--captions", str(write(tmp_path / "captions.json", captions)), "--official", str(tmp_path)]
    info += ["--images", str(tmp_path), "--sizes", "3", "5", "--scorer", judge, "--out", str(tmp_path / "out.json")]
    truematch.main(info)
    table = json.loads((tmp_path / "out.json").read_text())
    assert table["sizes"]["3"]["r1"]["value"] == pytest.approx(5 / 6)
    assert table["sizes"]["3"]["r1"]["groups"] == 2 and table["sizes"]["3"]["chance"] == pytest.approx(1 / 3)
    assert table["sizes"]["5"]["r1"]["value"] == pytest.approx(4 / 5)
    assert table["text"]["captions"] == 6 and table["text"]["words"] == 3
    assert "| 3 | 83.3 |" in " ".join(capsys.readouterr().out.split())


def test_equal_captions_score_chance(judge: str, images: Path) -> None:
    """Whatever one caption says to all: over a bag it can only be right once."""
    bag = ["red", "blue", "green"]
    queries = retrieval.bag_queries([bag], dict.fromkeys(bag, "A bird."))
    found = retrieval.match(encoders.load(judge), queries, {name: images / f"{name}.png" for name in bag})
    assert sum(one.hit for one in found) == pytest.approx(1)
    copies = retrieval.bag_queries([["red", "again"]], {"red": "red", "again": "red"})
    found = retrieval.match(encoders.load(judge), copies, dict.fromkeys(["red", "again"], images / "red.png"))
    assert [one.hit for one in found] == [0.5, 0.5], "the same image twice is a tie"


def test_truematch_of_ours_tells_marks_as_well(tmp_path: Path, judge: str, images: Path) -> None:
    names = ["red", "blue", "green"]
    rows = [
        Sample(
            id=name, task="caption", image=str(images / f"{name}.png"), size=Frame(32, 32), domain="bird",
            entity="bird", question="Caption?", boxes=(),
            things=(Thing("bird", Box(0, 0, 1, 1), ("round", name, "plain", "white cap")),),
        )
        for name in names
    ]  # fmt: skip
    write_jsonl(tmp_path / "samples.jsonl", rows)
    write_jsonl(tmp_path / "bags.jsonl", [Bag("3-hard-0", tuple(names), "hard", 0.9)])
    output = [Completion(name, f"A round {name} striped bird.", Answer(None, None, (), (), None)) for name in names]
    write_jsonl(tmp_path / "outputs.jsonl", output)
    info = ["--captions", str(tmp_path / "outputs.jsonl"), "--samples", str(tmp_path / "samples.jsonl")]
    truematch.main(
        [*info, "--bags", str(tmp_path / "bags.jsonl"), "--scorer", judge, "--out", str(tmp_path / "o.json")]
    )
    table = json.loads((tmp_path / "o.json").read_text())
    assert table["text"]["precision"]["value"] == pytest.approx(2 / 3)
    assert table["text"]["recall"]["value"] == pytest.approx(2 / 4)
    with pytest.raises(FieldmarkError, match="no bag of the requested --sizes"):
        truematch.main([*info, "--bags", str(tmp_path / "bags.jsonl"), "--sizes", "7", "--scorer", judge])


@pytest.mark.parametrize(
    "bags,says",
    [
        ([[1, 2]], "bag 0 does not hold 3"),
        ([[1, 1, 2]], "3 different"),
        ({}, "list of bags"),
        ([[1, 2, 99]], "no caption"),
    ],
)
def test_truematch_checks_its_files(tmp_path: Path, judge: str, bags: object, says: str) -> None:
    ids = coco(tmp_path)
    write(tmp_path / "3.json", bags)
    (tmp_path / "COCO_val2014_000000000099.jpg").write_bytes(b"")
    captions = write(tmp_path / "captions.json", ids)
    info = ["--captions", str(captions), "--official", str(tmp_path), "--images", str(tmp_path), "--sizes", "3"]
    with pytest.raises(FieldmarkError, match=says):
        truematch.main([*info, "--scorer", judge])


def test_random_distractors_leave_out_the_rest(tmp_path: Path, judge: str, images: Path) -> None:
    captions = RIGHT | {"red": "A blue bird."}
    info = ["--captions", str(write(tmp_path / "captions.json", captions)), "--images", str(images)]
    random_distractors.main([*info, "--size", "4", "--scorer", judge, "--out", str(tmp_path / "out.json")])
    table = json.loads((tmp_path / "out.json").read_text())
    assert table["batches"] == 2 and table["r1"]["value"] == pytest.approx(7 / 8) and table["r5"]["value"] == 1
    made = random_distractors.batches([str(k) for k in range(10)], 4, 0)
    assert [len(batch) for batch in made] == [4, 4] and len(set(itertools.chain(*made))) == 8
    assert made == random_distractors.batches([str(k) for k in range(10)], 4, 0)
    with pytest.raises(FieldmarkError, match="do not fill"):
        random_distractors.main([*info, "--scorer", judge])


def test_random_distractors_find_images_by_coco_numbers(tmp_path: Path, judge: str) -> None:
    ids = coco(tmp_path)
    captions = write(tmp_path / "captions.json", {number: RIGHT[colour] for number, colour in ids.items()})
    info = ["--captions", str(captions), "--images", str(tmp_path), "--size", "4", "--scorer", judge]
    random_distractors.main([*info, "--out", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text())["r1"]["value"] == 1


def test_imagecode_finds_the_target_among_ten(tmp_path: Path, judge: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for index in range(10):
            (made,) = paint(tmp_path, COLOURS[min(index, 7)])
            made.rename(tmp_path / name / f"img{index}.jpg")
    data = {"one": {"0": f"{COLOURS[0]}", "3": f"{COLOURS[3]}"}, "two": {"9": f"{COLOURS[7]}"}}
    info = ["--data", str(write(tmp_path / "data.json", data)), "--images", str(tmp_path), "--scorer", judge]
    imagecode.main([*info, "--human", "--out", str(tmp_path / "out.json")])
    table = json.loads((tmp_path / "out.json").read_text())
    assert table["queries"] == 3 and table["r1"]["groups"] == 2
    assert table["r1"]["value"] == pytest.approx((1 + 1 + 1 / 3) / 3), "images 7, 8 and 9 are the same: a tie of three"
    with pytest.raises(FieldmarkError, match="no caption of 'one/3'"):
        imagecode.main([*info, "--captions", str(write(tmp_path / "c.json", {"one/0": "red"}))])


def test_imagecode_reads_the_published_file(shared_data: Path) -> None:
    read = imagecode.read(shared_data / "imagecode" / "valid_data.json")
    assert len(read) == 1039 and sum(map(len, read.values())) == 2302
    with pytest.raises(FieldmarkError, match="without labels"):
        imagecode.read(shared_data / "imagecode" / "test_data_unlabeled.json")


def finecap(file: Path, rows: list[tuple[str, ...]]) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("image", "caption", "background", "object", "relation"), *rows])
    return file


def test_finecapeval_by_hand(tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    rows = [
        ("a.jpg", "two dogs run on a beach", "sandy beach", r"dogs\;a ball", "running dogs"),
        ("b.jpg", "a cat sleeps", "sofa", "cat", "sleeping on sofa"),
    ]
    data = finecapeval.read(finecap(tmp_path / "data.csv", rows))
    assert data[0].phrases["object"] == ("dogs", "a ball")
    captions = {"a": "Dogs are running on the Beach.", "b": "concatenated"}
    table = finecapeval.measure(data, captions, finecapeval.stemmer())
    # a: stems `dog`; `a` and `ball`. Raw caption: no `dog` in "Dogs ...", `a` is in "are", `ball` is not.
    # b: `cat` is found inside "concatenated".
    assert table["published"]["object"]["value"] == pytest.approx(100 * ((0 + 0.5) / 2 + 1) / 2)
    assert table["words"]["object"]["value"] == pytest.approx(100 * ((1 + 0) / 2 + 0) / 2)
    assert table["words"]["relation"]["value"] == pytest.approx(100 * (1 + 0) / 2)
    assert table["words"]["background"]["value"] == pytest.approx(100 * (0.5 + 0) / 2)
    assert table["cider"] > 0 and table["text"]["words"] == pytest.approx((6 + 1) / 2)


def test_finecapeval_as_published(tmp_path: Path) -> None:
    """The released script's three numbers on drawn rows: odd separators, empty and NA cells, `child's`, punctuation."""
    pytest.importorskip("nltk")
    table = json.loads((Path(__file__).parents[1] / "support/finecapeval.json").read_text(encoding="utf-8"))
    data = finecapeval.read(finecap(tmp_path / "data.csv", [tuple(row) for row in table["rows"]]))
    found = finecapeval.measure(data, table["captions"], finecapeval.stemmer())["published"]
    assert [found[aspect]["value"] for aspect in finecapeval.ASPECTS] == pytest.approx(table["published"], abs=1e-9)
    assert found["rows"] == 77 < len(data) == 90


def test_finecapeval_finds_captions_of_coco_images(tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    data = finecap(tmp_path / "data.csv", [("COCO_val2014_000000000042.jpg", "a dog", "sand", "dog", "runs")])
    captions = write(tmp_path / "captions.json", {"42": "a dog runs"})
    finecapeval.main(["--data", str(data), "--captions", str(captions), "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["published"]["object"]["value"], found["published"]["background"]["value"]) == (100, 0)


def test_the_published_retrieval_rule_cuts_captions_and_counts_ties(judge: str, images: Path) -> None:
    """A long caption whose first words fit another image: sentence by sentence it is right, cut it is not."""
    encoder = encoders.load(judge)
    long = "A blue bird. " + "A red bird. " * encoder.context
    bag = ["red", "blue"]
    queries = retrieval.bag_queries([bag], {"red": long, "blue": "A blue bird."})
    files = {name: images / f"{name}.png" for name in bag}
    found = retrieval.match(encoder, queries, files)
    cut = encoders.load(judge, pool="truncate").similarity([long], [files["red"]])[0, 0]
    assert found[0].published_similarity == pytest.approx(cut, abs=1e-6) != pytest.approx(found[0].similarity, abs=1e-4)
    tied = retrieval.match(
        encoder, retrieval.bag_queries([bag], dict.fromkeys(bag, "red")), dict.fromkeys(bag, files["red"])
    )
    scores = retrieval.retrieval_scores(tied)
    assert scores["r1"]["value"] == 0.5 and scores["published_r1"] == 1


def test_finecapeval_checks_its_files(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,caption,object\na.jpg,b,c\n")
    with pytest.raises(FieldmarkError, match="column background"):
        finecapeval.read(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("image,caption,background,object,relation\na.jpg,b\n")
    with pytest.raises(FieldmarkError, match="x.csv:2: the row has too few"):
        finecapeval.read(tmp_path / "x.csv")
    head = b"image,caption,background,object,relation\n"
    for row, info in (
        (b"a.jpg,\xff,b,c,d\n", "x.csv: not UTF-8 at byte 48"),
        (b"a.jpg," + b"x" * 200_000 + b",b,c,d\n", "x.csv:2: broken csv: field larger than field limit"),
        (b",a bird,b,c,d\n", "x.csv:2: field image is empty"),
    ):
        (tmp_path / "x.csv").write_bytes(head + row)
        with pytest.raises(FieldmarkError, match=info):
            finecapeval.read(tmp_path / "x.csv")


def test_imagecode_and_coco_numbers_are_plain_digits(tmp_path: Path) -> None:
    """Python counts superscripts and the like among the digits, and int() does not read them all."""
    for target in ("\u00b2", "10", "-1", "x"):
        with pytest.raises(FieldmarkError, match="set 'one': target .* is not one of 0..9"):
            imagecode.read(write(tmp_path / "data.json", {"one": {target: "red"}}))
    with pytest.raises(FieldmarkError, match="not a COCO id"):
        truematch.coco_file(tmp_path, "\u00b2")
    for name in ("nowhere", "x" * 5000, "a\0b"):
        with pytest.raises(FieldmarkError, match="not a folder of a set's images"):
            imagecode.images_of(tmp_path, name)


def test_captions_are_read_from_json_and_completions(tmp_path: Path) -> None:
    assert caption_stats.read_captions(write(tmp_path / "a.json", {"7": "<answer>red</answer>"})) == {"7": "red"}
    with pytest.raises(FieldmarkError, match="'7' is not a text but int"):
        caption_stats.read_captions(write(tmp_path / "a.json", {"7": 3}))
    (tmp_path / "b.json").write_text("{\n broken")
    with pytest.raises(FieldmarkError, match="b.json:2: broken JSON"):
        caption_stats.read_captions(tmp_path / "b.json")
