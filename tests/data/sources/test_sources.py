"""Every source: what it yields from good input, and what it says of bad input (file, line, field, way out)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.data import sources
from mllm.data.sources import PhotoRequest, SourceError
from mllm.errors import FieldmarkError, UnknownNameError
from mllm.io.images import image_size
from mllm.records import Photo
from tests.support.photos import one_kind

ROOT = Path(__file__).resolve().parents[3]
PETS = Path(os.environ.get("FIELDMARK_TEST_DATA", ROOT.parent / "shared" / "data")) / "oxford_pets_sample"
HEAD = "image,entity,domain,x1,y1,x2,y2\n"


def draw(path: Path, size: tuple[int, int] = (40, 20), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (90, 120, 60)).save(path, exif=exif)
    return path


def read(source: str, path: Path, **request: Any) -> list[Photo]:
    return list(sources.photos(source, PhotoRequest(input=path, **request)))


def table(folder: Path, text: str) -> Path:
    draw(folder / "a.jpg")
    draw(folder / "b.jpg")
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return folder / "t.csv"


def coco(folder: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    draw(folder / "images" / "a.jpg")
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 20}],
        "categories": [{"id": 7, "name": "robin", "supercategory": "bird"}, {"id": 8, "name": "wren"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 7, "bbox": [4, 2, 10, 8], "iscrowd": 0}],
    }
    change(content)
    (folder / "instances.json").write_text(json.dumps(content, indent=0), encoding="utf-8")
    return folder / "instances.json"


# What good input gives.


def test_csv_reads_corners_sides_and_several_boxes(tmp_path: Path) -> None:
    file = table(
        tmp_path, HEAD + "a.jpg,robin,bird,4,2,14,10\na.jpg,robin,bird,20,2,40,20\nb.jpg, wren ,bird,0,0,40,20\n"
    )
    first, second = read("csv", file, licence="CC0")
    assert (first.id, first.things[0].entity, first.things[0].domain, first.size, first.licence) == (
        "a.jpg", "robin", "bird", Frame(40, 20), "CC0",
    )  # fmt: skip
    assert first.boxes == (Box(0.1, 0.1, 0.35, 0.5), Box(0.5, 0.1, 1, 1))
    assert second.things[0].entity == "wren" and Path(second.image) == (tmp_path / "b.jpg").resolve()
    file = table(tmp_path, "id,image,entity,licence,x1,y1,w,h\n9,a.jpg,robin,mine,4,2,10,8\n")
    (only,) = read("csv", file, domain="bird")
    assert only.boxes == (Box(0.1, 0.1, 0.35, 0.5),) and (only.id, only.licence) == ("9", "mine")


def test_csv_without_boxes_needs_leave(tmp_path: Path) -> None:
    file = table(tmp_path, "image,entity,domain\na.jpg,robin,bird\n")
    with pytest.raises(SourceError, match="no box.*--whole-image-boxes"):
        read("csv", file)
    assert read("csv", file, whole_image_boxes=True)[0].boxes == (Box(0, 0, 1, 1),)


def test_boxes_that_leave_the_image_can_be_clipped(tmp_path: Path) -> None:
    file = table(tmp_path, HEAD + "a.jpg,robin,bird,4,2,44,10\n")
    assert read("csv", file, clip_boxes=True)[0].boxes == (Box(0.1, 0.1, 1, 0.5),)


@pytest.mark.parametrize("sidecar", ["boxes.jsonl", "boxes.csv", None])
def test_image_folder(tmp_path: Path, sidecar: str | None) -> None:
    draw(tmp_path / "grey_wren" / "1.jpg")
    draw(tmp_path / "robin" / "2.PNG")
    if sidecar == "boxes.jsonl":
        rows = [{"image": "grey_wren/1.jpg", "box": [4, 2, 14, 10]}, {"image": "robin/2.PNG", "box": [0, 0, 20, 20]}]
        (tmp_path / sidecar).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif sidecar:
        (tmp_path / sidecar).write_text("image,x1,y1,x2,y2\ngrey_wren/1.jpg,4,2,14,10\nrobin/2.PNG,0,0,20,20\n")
    wren, robin = read("image_folder", tmp_path, domain="bird", whole_image_boxes=sidecar is None)
    assert (wren.id, wren.things[0].entity, robin.things[0].entity) == ("grey_wren/1.jpg", "grey wren", "robin")
    assert wren.boxes == (Box(0.1, 0.1, 0.35, 0.5) if sidecar else Box(0, 0, 1, 1),)


def test_a_table_row_is_a_thing_and_a_photo_may_show_several_kinds(tmp_path: Path) -> None:
    text = HEAD + "a.jpg,robin,bird,4,2,14,10\na.jpg,oak,tree,20,2,40,20\na.jpg,robin,bird,0,2,9,9\n"
    (only,) = read("csv", table(tmp_path, text))
    assert only.kinds == (("bird", "robin"), ("tree", "oak")) and only.is_scene
    assert [thing.box for thing in only.of(("bird", "robin"))] == [Box(0.1, 0.1, 0.35, 0.5), Box(0, 0.1, 0.225, 0.45)]
    file = table(tmp_path, "image,entity,domain\na.jpg,robin,bird\na.jpg,oak,tree\n")
    with pytest.raises(SourceError, match="no box of 'robin', and it shows other kinds"):
        read("csv", file, whole_image_boxes=True)
    assert [thing.box for thing in read("csv", file, boxes_later=True)[0].things] == [None, None]


def test_coco_boxes_follow_an_exif_rotation_when_they_were_drawn_before_it(tmp_path: Path) -> None:
    file = coco(tmp_path)
    draw(tmp_path / "images" / "a.jpg", orientation=6)
    (only,) = read("coco", file)
    assert only.size == Frame(20, 40) == image_size(only.image)
    assert only.boxes == (Box(0.1, 0.1, 0.35, 0.5).oriented(6),)
    (seen,) = read("coco", coco(tmp_path / "seen", lambda c: c["images"][0].update(width=40, height=20)))
    assert seen.boxes == (Box(0.1, 0.1, 0.35, 0.5),)


def test_pocket_draws_its_photos(tmp_path: Path) -> None:
    rows = list(sources.photos("pocket", PhotoRequest(out=tmp_path, domain="bird", photos_per_entity=3)))
    assert {row.things[0].use for row in rows} == {"train", "validation", "test"}
    kinds = {row.kinds: row.things[0].use for row in rows}
    assert len(rows) == sum(3 if use == "train" else 2 for use in kinds.values())
    assert all(image_size(tmp_path / row.image) == row.size and len(row.things[0].marks) == 4 for row in rows)
    assert rows == list(sources.photos("pocket", PhotoRequest(out=tmp_path, domain="bird", photos_per_entity=3)))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.skipif(not PETS.is_dir(), reason="the pets sample is not there")
def test_oxford_pets_takes_the_head_where_the_outline_is_broken() -> None:
    rows = read("oxford_pets", PETS)
    assert len(rows) == 148 and len({row.things[0].entity for row in rows}) == 37
    heads = {row.id for row in rows if row.provenance["box"] == "head"}
    assert heads == {
        "Birman_125", "Sphynx_111", "american_bulldog_140", "miniature_pinscher_114", "yorkshire_terrier_100",
    }  # fmt: skip
    assert {row.things[0].domain for row in read("oxford_pets", PETS, domain="cat")} == {"cat"}


# What is text of bad input.

BAD_TABLES = [
    ("", "t.csv: the file is empty"),
    (HEAD, "t.csv: the table has a header and no rows"),
    ("image,entity,beak\na.jpg,robin,red\n", "t.csv:1: unknown column 'beak'"),
    ("image,entitty\na.jpg,robin\n", "t.csv:1: unknown column 'entitty'. Did you mean 'entity'?"),
    ("image,domain\na.jpg,bird\n", "t.csv:1: column 'entity' is missing"),
    ("image,entity,x1,y1\na.jpg,robin,1,2\n", "t.csv:1: box columns are x1,y1; give x1,y1,x2,y2 or x1,y1,w,h"),
    ("image,image,entity\na.jpg,b.jpg,robin\n", "t.csv:1: column 'image' is there twice"),
    (HEAD + "a.jpg,robin,bird,4,2,14\n", "t.csv:2: the row does not have as many cells"),
    (HEAD + "a.jpg,,bird,4,2,14,10\n", "t.csv:2: field entity is empty"),
    (HEAD + "a.jpg,robin,,4,2,14,10\n", "t.csv:2: field domain: no domain is given; name one with --domain"),
    (HEAD + "c.jpg,robin,bird,4,2,14,10\n", "t.csv:2: field image: no such image"),
    (HEAD + "a.jpg,robin,bird,4,2,44,10\n", "t.csv:2: fields x1,y1,x2,y2: box (4.0, 2.0, 44.0, 10.0) leaves its frame"),
    (HEAD + "a.jpg,robin,bird,14,2,4,10\n", "t.csv:2: fields x1,y1,x2,y2: box (14.0, 2.0, 4.0, 10.0) is inverted"),
    (HEAD + "a.jpg,robin,bird,4,2,x,10\n", "t.csv:2: field x2: a number is needed, got 'x'"),
    (HEAD + "a.jpg,robin,bird,4,2,14,10\na.jpg,robin,bird,4,2,14,10\n", "t.csv:3: the same box of a.jpg"),
    (
        HEAD + "a.jpg,robin,bird,4,2,14,10\na.jpg,robin,dog,4,2,9,10\n",
        "'robin' is of domain 'bird' and of 'dog'",
    ),
    (
        HEAD + "a.jpg,robin,bird,4,2,14,10\na.jpg,wren,bird,,,,\n",
        "t.csv:2: the photo has no box of 'wren'",
    ),
    ("id,image,entity,domain\n1,a.jpg,robin,bird\n1,b.jpg,robin,bird\n", "t.csv:3: field id: '1' was used before"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TABLES, ids=[message[:40] for _, message in BAD_TABLES])
def test_csv_errors_name_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError) as error:
        read("csv", table(tmp_path, text))
    assert message in str(error.value)


BAD_SIDECARS = [
    ('{"image": "wren/1.jpg", "box": [4, 2, 14', "boxes.jsonl:1: broken JSON at column"),
    ('\n{"image": "wren/1.jpg"}', "boxes.jsonl:2: field box: is missing; a line is"),
    ('{"image": "wren/1.jpg", "box": [4, 2, 14, 10], "x": 1}', "boxes.jsonl:1: field x: unknown field"),
    ('{"image": "wren/1.jpg", "box": [4, 2, 14]}', "boxes.jsonl:1: field box[3]: is missing"),
    ('{"image": "wren/1.jpg", "box": [4, 2, 14, true]}', "boxes.jsonl:1: field box[3]: Input should be a valid number"),
    ('{"image": 3, "box": [4, 2, 14, 10]}', "boxes.jsonl:1: field image: Input should be a valid string"),
    ('{"image": "wren/9.jpg", "box": [4, 2, 14, 10]}', "boxes.jsonl:1: field image: no such photo"),
    (
        '{"image": "wren/1.jpg", "box": [4, 2, 4, 10]}',
        "boxes.jsonl:1: field box: box (4.0, 2.0, 4.0, 10.0) is inverted or empty",
    ),
    ("", "boxes.jsonl: the file is empty"),
    ('{"image": "wren/1.jpg", "box": [4, 2, 9, 9]}\n' * 2, "boxes.jsonl:2: the same box"),
]


@pytest.mark.parametrize(("text", "message"), BAD_SIDECARS, ids=[message[:40] for _, message in BAD_SIDECARS])
def test_image_folder_errors_name_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    draw(tmp_path / "wren" / "1.jpg")
    (tmp_path / "boxes.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError) as error:
        read("image_folder", tmp_path, domain="bird", whole_image_boxes=True)
    assert message in str(error.value)


def test_folder_troubles(tmp_path: Path) -> None:
    for source, message in (("image_folder", "needs an input folder"), ("csv", "needs an input file")):
        with pytest.raises(SourceError, match=message):
            list(sources.photos(source, PhotoRequest()))
        with pytest.raises(SourceError, match="none: no such"):
            read(source, tmp_path / "none")
    with pytest.raises(SourceError, match="no domain is given"):
        read("image_folder", tmp_path)
    with pytest.raises(SourceError, match="no photo found; the layout is"):
        read("image_folder", tmp_path, domain="bird")
    (tmp_path / "wren").mkdir()
    (tmp_path / "wren" / "1.jpg").write_text("<html>not found</html>")
    with pytest.raises(SourceError, match="1.jpg.*not an image"):
        read("image_folder", tmp_path, domain="bird", whole_image_boxes=True)


BAD_COCO: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("field annotations: List should have at least 1 item", lambda c: c["annotations"].clear()),
    ("field images: is missing", lambda c: c.pop("images")),
    ("images[1]: field id: 1 was used before", lambda c: c["images"].append(c["images"][0])),
    ("categories[2]: field id: 7 was used before", lambda c: c["categories"].append({"id": "7", "name": "owl"})),
    ("field images[0].file_name: is missing", lambda c: c["images"][0].pop("file_name")),
    ("images[0]: field file_name: no such image", lambda c: c["images"][0].update(file_name="z.jpg")),
    ("annotations[0]: field image_id: 4 is in no entry", lambda c: c["annotations"][0].update(image_id=4)),
    ("field annotations[0].bbox: List should have at least 4 items", lambda c: c["annotations"][0].update(bbox=[1, 2])),
    (
        "annotations[0]: field bbox: box (4, 2, 40, 44) leaves",
        lambda c: c["annotations"][0].update(bbox=[4, 2, 36, 42]),
    ),
    ("annotations[0]: field bbox: box x=4", lambda c: c["annotations"][0].update(bbox=[4, 2, -1, 4])),
    ("was the image resized?", lambda c: c["images"][0].update(width=80)),
    ("no image has an instance with a box", lambda c: c["annotations"][0].update(iscrowd=1)),
]


@pytest.mark.parametrize(("message", "change"), BAD_COCO, ids=[message[:40] for message, _ in BAD_COCO])
def test_coco_errors_name_file_entry_and_field(tmp_path: Path, message: str, change: Any) -> None:
    with pytest.raises(SourceError) as error:
        read("coco", coco(tmp_path, change))
    assert "instances.json" in str(error.value) and message in str(error.value).replace(".0", "")


def test_coco_that_is_no_json(tmp_path: Path) -> None:
    for text, message in (("", "instances.json:1: broken JSON"), ('{\n"images": [}', "instances.json:2: broken JSON")):
        file = coco(tmp_path)
        file.write_text(text)
        with pytest.raises(SourceError, match=message):
            read("coco", file)


def test_pets_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"annotations.json: no such file"):
        read("oxford_pets", tmp_path)
    for text, message in (
        ("[", "annotations.json:1: broken JSON"),
        ("[]", "no photo"),
        ('{"image": 1}', "annotations.json: Input should be a valid list"),
        ('[{"image": "a.jpg"}]', r"\[0\]: field breed: is missing"),
        ('[{"image": 1}]', r"\[0\]: field image: Input should be a valid string, got 1"),
        ("[7]", r"\[0\]: an object is needed, got 7"),
    ):
        (tmp_path / "annotations.json").write_text(text)
        with pytest.raises(SourceError, match=message):
            read("oxford_pets", tmp_path)


def test_an_unknown_source_lists_the_known_ones_and_two_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(sources.names()) >= {"coco", "csv", "image_folder", "oxford_pets", "pocket"}
    with pytest.raises(UnknownNameError, match="image_folder"):
        sources.load("image_foldr")
    twin = one_kind("1", "a.jpg", Frame(4, 4), "bird", "wren", (Box(0, 0, 1, 1),))
    monkeypatch.setattr(sources, "load", lambda name: lambda request: iter([twin, twin]))
    with pytest.raises(FieldmarkError, match="two photos have the id '1'"):
        list(sources.photos("csv", PhotoRequest()))


def test_texts_that_are_no_utf8_are_told(tmp_path: Path) -> None:
    file = table(tmp_path, HEAD)
    file.write_bytes((HEAD + "a.jpg,m\u00f6we,bird,4,2,14,10\n").encode("latin-1"))
    with pytest.raises(SourceError, match=r"t.csv: not UTF-8 at byte 40; save the file as UTF-8"):
        read("csv", file)
    file.write_text("\ufeff" + HEAD + "a.jpg,m\u00f6we,bird,4,2,14,10\n", encoding="utf-8")
    assert read("csv", file)[0].things[0].entity == "m\u00f6we"
