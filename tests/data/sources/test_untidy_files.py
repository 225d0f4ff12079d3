"""Labels as other programs leave them: ids, separators, spellings of paths, and files in another place's shape."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from mllm.boxes import Box
from mllm.data import caption_sources
from mllm.data.caption_sources import CaptionRequest
from mllm.data.sources import SourceError
from tests.data.sources.test_sources import HEAD, coco, draw, read, table

WREN = Box(0.1, 0.1, 0.35, 0.5)
NFC, NFD = "Mésange", unicodedata.normalize("NFD", "Mésange")


@pytest.mark.parametrize("bbox", [[5, 5, 20, 0], [5, 5, 0, 9], [0, 0, 0.0, 0]])
def test_boxes_without_an_area_are_passed_over_and_counted(
    tmp_path: Path, bbox: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def add(content: dict[str, Any]) -> None:
        content["annotations"].insert(0, {**content["annotations"][0], "bbox": bbox, "category_id": 8})
        content["annotations"].append({"image_id": 1, "caption": "a robin"})

    file = coco(tmp_path, add)
    with caplog.at_level(logging.WARNING):
        (photo,) = read("coco", file)
    assert photo.boxes == (WREN,) and photo.things[0].entity == "robin"
    assert "1 boxes of width or height 0 passed over" in caplog.text and "annotations[0]" in caplog.text
    (sample,) = caption_sources.images("coco", CaptionRequest(file, "bird"))
    assert [thing.box for thing in sample.things] == [WREN]


@pytest.mark.parametrize("bbox", [[5, 5, -3, 10], [5, 5, 10, -0.5]])
def test_boxes_of_negative_size_stop_the_file(tmp_path: Path, bbox: list[float]) -> None:
    with pytest.raises(SourceError, match=r"annotations\[0\]: field bbox: box x=5"):
        read("coco", coco(tmp_path, lambda content: content["annotations"][0].update(bbox=bbox)))


@pytest.mark.parametrize("number", [5, "5", None])
def test_ids_of_annotations_need_not_differ(tmp_path: Path, number: object) -> None:
    """Merged files repeat them, and nothing refers to them."""
    other = {"id": number, "image_id": 1, "category_id": 7, "bbox": [20, 2, 10, 8]}
    (photo,) = read("coco", coco(tmp_path, lambda content: content["annotations"].append(other)))
    assert photo.boxes == (WREN, Box(0.5, 0.1, 0.75, 0.5))


@pytest.mark.parametrize("image_id, category_id", [("1", 7), (1, "7"), (1.0, 7.0), ("1", "7")])
def test_one_number_is_one_id_however_it_is_written(tmp_path: Path, image_id: object, category_id: object) -> None:
    change = {"image_id": image_id, "category_id": category_id}
    (photo,) = read("coco", coco(tmp_path, lambda content: content["annotations"][0].update(change)))
    assert photo.id == "1" and photo.things[0].entity == "robin"


@pytest.mark.parametrize("image_id", ["01", " 1", "1.0", 1.5, True, "9" * 5000, [1]])
def test_other_ids_are_other_ids(tmp_path: Path, image_id: object) -> None:
    with pytest.raises(SourceError, match="field .*image_id: .*(no entry|a whole number or a text is needed)"):
        read("coco", coco(tmp_path, lambda content: content["annotations"][0].update(image_id=image_id)))


@pytest.mark.parametrize("kind, number", [("images", "1"), ("images", 1.0), ("categories", 8.0)])
def test_ids_that_others_refer_to_must_differ(tmp_path: Path, kind: str, number: object) -> None:
    entry = {"id": number, "file_name": "b.jpg", "name": "owl"}
    with pytest.raises(SourceError, match=rf"{kind}\[\d\]: field id: \d was used before.*merged from several"):
        read("coco", coco(tmp_path, lambda content: content[kind].append(entry)))


@pytest.mark.parametrize("there", ["sub/a.jpg", f"{NFD}/a.jpg", f"{NFC}/a.jpg", "sub\\a.jpg"])
@pytest.mark.parametrize("written", ["{}", "nfc", "nfd", "\\"])
def test_paths_are_found_however_they_are_spelled(tmp_path: Path, there: str, written: str) -> None:
    """With the backslash of Windows, and in either Unicode form; a file called exactly so comes first."""
    forms = {"nfc": unicodedata.normalize("NFC", there), "nfd": unicodedata.normalize("NFD", there)}
    named = forms.get(written, there.replace("/", "\\") if written == "\\" else there)
    image = draw(tmp_path / "c" / there)
    (photo,) = read("coco", coco(tmp_path / "c", lambda content: content["images"][0].update(file_name=named)))
    assert Path(photo.image) == image.resolve()
    image = draw(tmp_path / "t" / there)
    (photo,) = read("csv", table(tmp_path / "t", f"{HEAD}{named},robin,bird,4,2,14,10\n"))
    assert Path(photo.image) == image.resolve() and photo.boxes == (WREN,)
    captions = tmp_path / "t" / "captions.csv"
    captions.write_text(f"image,caption\n{named},a robin\n", encoding="utf-8")
    (sample,) = caption_sources.images("csv", CaptionRequest(captions, "bird"))
    assert Path(sample.image) == image.resolve()
    if "\\" not in there:
        draw(tmp_path / "f" / there)
        row = {"image": named, "box": [4, 2, 14, 10]}
        (tmp_path / "f" / "boxes.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
        (photo,) = read("image_folder", tmp_path / "f", domain="bird")
        assert photo.boxes == (WREN,)


def test_a_name_has_one_unicode_form(tmp_path: Path) -> None:
    file = table(tmp_path, f"{HEAD}a.jpg,{NFD},bird,4,2,14,10\nb.jpg,{NFC},bird,4,2,14,10\n")
    assert [photo.things[0].entity for photo in read("csv", file)] == [NFC, NFC]


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_tables_are_divided_by_what_their_header_is(tmp_path: Path, mark: str) -> None:
    text = f"{HEAD}a.jpg,robin,bird,4,2,14,10\n".replace(",", mark)
    (photo,) = read("csv", table(tmp_path, text))
    assert photo.boxes == (WREN,)
    with pytest.raises(SourceError, match=r"t.csv:2: field x2: a number is needed, got '14,5'; write decimals with a"):
        read("csv", table(tmp_path, text.replace("14", '"14,5"')))


def test_a_caption_may_hold_the_other_marks(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    (tmp_path / "c.csv").write_text("image,caption\na.jpg,red; and\tgrey\n", encoding="utf-8")
    (sample,) = caption_sources.images("csv", CaptionRequest(tmp_path / "c.csv", "bird"))
    assert sample.captions == ("red; and grey",)


@pytest.mark.parametrize("source, named, message", [
    ("coco", "images", "this is a folder, but a file is needed; name one in it"),
    ("csv", "images", "this is a folder, but a file is needed"),
    ("image_folder", "instances.json", "this is a file, but a folder is needed"),
    ("image_folder", "nothere", "no such folder"),
    ("csv", "nothere", "no such file"),
])  # fmt: skip
def test_a_folder_in_the_place_of_a_file_is_named_as_such(
    tmp_path: Path, source: str, named: str, message: str
) -> None:
    coco(tmp_path)
    with pytest.raises(SourceError, match=f"{named}: {message}"):
        read(source, tmp_path / named, domain="bird")
