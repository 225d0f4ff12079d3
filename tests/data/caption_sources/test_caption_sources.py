"""Images that people captioned, read from every format; a bad input is an error that says where and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.data import caption_sources
from mllm.data.caption_sources import CaptionRequest
from mllm.data.sources import SourceError
from mllm.errors import UnknownNameError
from mllm.records import Sample


def draw(path: Path, size: tuple[int, int] = (40, 20), turn: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image, exif = Image.new("RGB", size, "teal"), Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    image.save(path, exif=exif)
    return path


def read(name: str, file: Path, **more: Any) -> list[Sample]:
    return list(caption_sources.images(name, CaptionRequest(input=file, **more)))


@pytest.mark.parametrize("name", caption_sources.names())
def test_every_source_says_what_it_reads(name: str) -> None:
    module = __import__(f"mllm.data.caption_sources.{name}", fromlist=["images"])
    assert module.__doc__ and callable(caption_sources.load(name))


def test_an_unknown_source_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'coco'"):
        caption_sources.load("cocoa")


def coco(folder: Path, **changes: Any) -> Path:
    """Two captioned images, one of them with an instance and a crowd, and one without a caption."""
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        draw(folder / ("images" if number else "") / name)
    content = {
        "images": [
            {"id": 7, "file_name": "b.jpg", "license": 4},
            {"id": 3, "file_name": "a.jpg"},
            {"id": 9, "file_name": "c.jpg"},
        ],
        "licenses": [{"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}],
        "categories": [{"id": 1, "name": "bear"}],
        "annotations": [
            {"id": 1, "image_id": 3, "caption": "A bear. "},
            {"id": 2, "image_id": 7, "caption": "Two  bears\n"},
            {"id": 3, "image_id": 7, "caption": "Bears."},
            {"id": 4, "image_id": 7, "category_id": 1, "bbox": [10, 5, 20, 10], "iscrowd": 0},
            {"id": 5, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 20], "iscrowd": 1},
        ],
    } | changes
    file = folder / "captions.json"
    file.write_text(json.dumps(content))
    return file


def test_coco_captions_instances_and_terms(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    two, one = read("coco", coco(tmp_path))
    assert (two.id, one.id) == ("7", "3"), "in the order of the images"
    assert two.captions == ("Two bears", "Bears.") and one.captions == ("A bear.",)
    assert [(thing.entity, thing.box) for thing in two.things] == [("bear", Box(0.25, 0.25, 0.75, 0.75))]
    assert two.licence == "Attribution License http://creativecommons.org/licenses/by/2.0/"
    assert one.licence == "not stated" and one.task == "caption" and one.size == Frame(40, 20)
    assert Path(one.image).is_absolute() and "1 of 3 images skipped: they have no caption" in caplog.text


def test_the_official_captions_file_has_no_categories(tmp_path: Path) -> None:
    file = coco(tmp_path)
    content = json.loads(file.read_text())
    del content["categories"], content["licenses"]
    content["annotations"] = content["annotations"][:3]
    file.write_text(json.dumps(content))
    assert [len(sample.things) for sample in read("coco", file, domain="animal")] == [0, 0]
    assert {sample.domain for sample in read("coco", file, domain="animal")} == {"animal"}


BAD_COCO: list[tuple[dict[str, Any], str]] = [
    ({"annotations": []}, "field annotations: List should have at least 1 item"),
    ({"images": {}}, "field images: Input should be a valid list"),
    (
        {"annotations": [{"id": 1, "image_id": 5, "caption": "x"}]},
        r"annotations\[0\]: field image_id: 5 is in no entry",
    ),
    ({"annotations": [{"id": 1, "image_id": 3, "caption": " "}]}, r"annotations\[0\]: field caption: a text is needed"),
    (
        {"annotations": [{"id": 1, "image_id": 3, "caption": 4}]},
        r"annotations\[0\].caption: Input should be a valid string, got 4",
    ),
    ({"annotations": [{"id": 1, "image_id": 3}]}, r"annotations\[0\]: neither a caption nor an instance"),
    ({"annotations": [{"id": 1, "image_id": 3, "bbox": [0, 0, 1, 1], "category_id": 2}]}, "neither a caption nor an"),
    ({"images": [{"id": 3, "file_name": "no.jpg"}]}, r"images\[0\]: field file_name: no such image"),
    ({"licenses": [{"id": 1}]}, r"field licenses\[0\].name: is missing"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_COCO, ids=[message[:40] for _, message in BAD_COCO])
def test_bad_coco_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if "images" in changes and isinstance(changes["images"], list):
        changes = changes | {"annotations": [{"id": 1, "image_id": 3, "caption": "x"}]}
    with pytest.raises(SourceError, match=message):
        read("coco", coco(tmp_path, **changes))


def test_instances_of_an_image_that_was_turned_follow_it(tmp_path: Path) -> None:
    """Drawn on 40 x 20 as stored, shown turned by 90 degrees: the left half becomes the top half."""
    file = coco(tmp_path)
    draw(tmp_path / "images" / "b.jpg", turn=6)
    content = json.loads(file.read_text())
    content["images"][0] |= {"width": 40, "height": 20}
    content["annotations"][3]["bbox"] = [0, 0, 20, 20]
    file.write_text(json.dumps(content))
    turned = read("coco", file)[0]
    assert turned.size == Frame(20, 40) and turned.things[0].box == Box(0.0, 0.0, 1.0, 0.5)


def table(folder: Path, *lines: str) -> Path:
    for name in ("a.png", "b.png"):
        draw(folder / name)
    file = folder / "captions.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_csv_rows_of_an_image_are_captions_of_several_people(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "image,caption,entity,licence",
        "b.png,A wren.,wren,CC0",
        'a.png,"Red, and blue",,',
        "b.png,It,wren,CC0",
    )
    wren, other = read("csv", file, licence="mine")
    assert (wren.id, wren.captions, wren.entity) == ("b.png", ("A wren.", "It"), "wren")
    assert (other.captions, other.entity, other.domain) == (("Red, and blue",), "", "scene")
    assert (wren.licence, other.licence) == ("CC0", "mine")


BAD_CSV = [
    (["image,text", "a.png,x"], "unknown column 'text'"),
    (["image,caption"], "a header and no rows"),
    (["image,caption", "a.png,"], "captions.csv:2: field caption is empty"),
    (["image,caption", "no.png,x"], "captions.csv:2: field image: no such image"),
    (
        ["image,caption,domain", "a.png,x,bird", "a.png,y,car"],
        "captions.csv:3: field domain: 'car' differs from 'bird'",
    ),
    (["image,caption,id", "a.png,x,1", "b.png,y,1"], "two images have the id '1'"),
]


@pytest.mark.parametrize(("lines", "message"), BAD_CSV, ids=[message[:40] for _, message in BAD_CSV])
def test_bad_tables(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read("csv", table(tmp_path, *lines))


def test_a_folder_with_texts_beside_its_images(tmp_path: Path) -> None:
    draw(tmp_path / "winter_wren" / "2.jpg")
    draw(tmp_path / "winter_wren" / "1.jpg").with_suffix(".txt").write_text("A wren.\n\n  On a branch \n")
    draw(tmp_path / "top.png")
    top, first, second = read("image_folder", tmp_path, licence="CC0")
    assert (top.id, top.entity, top.captions) == ("top.png", "", ())
    assert (first.id, first.entity) == ("winter_wren/1.jpg", "winter wren")
    assert (first.captions, second.captions) == (("A wren.", "On a branch"), ())
    assert second.provenance == {"source": "image_folder"} and second.licence == "CC0"


def orphan(folder: Path) -> None:
    draw(folder / "a.png")
    (folder / "b.txt").write_text("x")


def twins(folder: Path) -> None:
    draw(folder / "a.png")
    draw(folder / "a.jpg")


def leads_out(folder: Path) -> None:
    os.symlink(draw(folder.parent / "outside.png"), folder / "a.png")


def latin(folder: Path) -> None:
    draw(folder / "a.png").with_suffix(".txt").write_bytes(b"caf\xe9")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: None, "no image was found"),
        (orphan, "b.txt: captions without an image"),
        (twins, "another image has the captions of a.txt already"),
        (leads_out, "a link that leads out"),
        (latin, "a.txt: not UTF-8 at byte 4"),
        (lambda folder: (folder / "a.png").write_bytes(b"no image"), "a.png"),
    ],
)
def test_bad_folders(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(SourceError, match=message):
        read("image_folder", folder)


@pytest.mark.parametrize("name", ["coco", "csv", "image_folder"])
def test_an_input_that_is_not_there_is_said_to_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="needs an input"):
        list(caption_sources.images(name, CaptionRequest()))
    with pytest.raises(SourceError, match="no such"):
        read(name, tmp_path / "nothing")


@pytest.mark.parametrize("ending", [".TXT", ".caption", ".Caption"])
@pytest.mark.parametrize("odd", ["\u2028", "\u2029"])
def test_captions_are_found_whatever_their_ending_and_end_at_newlines(tmp_path: Path, ending: str, odd: str) -> None:
    draw(tmp_path / "wren" / "a.jpg")
    (tmp_path / "wren" / f"a{ending}").write_text(f"One{odd}bird.\nA wren.\n")
    (sample,) = read("image_folder", tmp_path)
    assert sample.captions == ("One bird.", "A wren.") and sample.entity == "wren"
    (tmp_path / "wren" / "a.txt").write_text("Another.")
    with pytest.raises(SourceError, match="captions of the same picture"):
        read("image_folder", tmp_path)


@pytest.mark.parametrize("words", ["A wren.<|im_end|>", "A \x00 wren."])
def test_a_caption_that_holds_no_words_is_refused(tmp_path: Path, words: str) -> None:
    rows = [{"id": 1, "image_id": 3, "caption": "A bear."}, {"id": 2, "image_id": 7, "caption": words}]
    with pytest.raises(SourceError, match=r"annotations\[1\]: .*take it out"):
        read("coco", coco(tmp_path, annotations=rows))
