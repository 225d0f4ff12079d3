"""What every source says of bad exports (file, line or entry, field), and that hostile ones reach nothing outside."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mllm.data.sources import SourceError
from tests.data.sources.test_sources import draw, read
from tests.support.exports import META, WITH_BOXES, WITHOUT_BOXES, Shot, as_inaturalist, as_voc

NINES = "9" * 400


def export(name: str, folder: Path) -> Path:
    """One photo of 40 x 20 pixels as a source's tool exports it."""
    draw(folder / "own" / "a.jpg")
    shot = Shot(folder / "own" / "a.jpg", (40, 20), "robin", ((4, 2, 14, 10),))
    return (WITH_BOXES | WITHOUT_BOXES)[name](folder / name, [shot])


def fails(name: str, path: Path, message: str, **request: Any) -> None:
    with pytest.raises(SourceError) as error:
        read(name, path, **{"domain": "bird", "out": path.parent, **request})
    assert message in str(error.value)


# name of the source, file in its export, what is replaced in it by what, what the error holds
REPLACED = [
    ("yolo", "data.yaml", "  0: robin", "  0: [robin", "data.yaml:6: broken YAML"),
    ("yolo", "data.yaml", "  0: robin", "  0: 7", "data.yaml: field names[0]: Input should be a valid string, got 7"),
    ("yolo", "data.yaml", "images/train", "images/none", "data.yaml: field train: no folder or list 'images/none'"),
    ("yolo", "data.yaml", "images/train", "../../own", "data.yaml: field train: no folder or list '../../own'"),
    ("yolo", "data.yaml", "images/train", "", "data.yaml: fields train, val, test: no image is listed"),
    ("yolo", "labels/train/a.txt", "0 0.2", "1 0.2", "a.txt:1: field class: '1' is not in names (0 to 0)"),
    ("yolo", "labels/train/a.txt", "0 0.2", "-1 0.2", "a.txt:1: field class: '-1' is not in names"),
    ("yolo", "labels/train/a.txt", "0 0.2", f"{NINES} 0.2", "a.txt:1: field class: '999"),
    ("yolo", "labels/train/a.txt", "0.225000", "x", "a.txt:1: field cx: a number is needed, got 'x'"),
    ("yolo", "labels/train/a.txt", "0.225000", "nan", "a.txt:1: fields cx,cy,w,h: a box needs four finite numbers"),
    ("yolo", "labels/train/a.txt", "0.225000", NINES, "a.txt:1: fields cx,cy,w,h: a box needs four finite numbers"),
    ("yolo", "labels/train/a.txt", "0.225000", "1.2", "a.txt:1: fields cx,cy,w,h: box (1.075"),
    ("yolo", "labels/train/a.txt", " 0.225000", "", "a.txt:1: 3 numbers after the class"),
    ("voc", "Annotations/a.xml", "</object>", "", "a.xml:4: broken XML: mismatched tag"),
    ("voc", "Annotations/a.xml", "<xmin>5<", "<xmin>5px<", "a.xml:3: field xmin: a number is needed, got '5px'"),
    ("voc", "Annotations/a.xml", "<xmin>5<", "<xmin>NaN<", "a.xml:3: fields xmin,ymin,xmax,ymax: a box needs four fin"),
    ("voc", "Annotations/a.xml", "<xmin>5<", f"<xmin>{NINES}<", "a.xml:3: fields xmin,ymin,xmax,ymax: a box needs fou"),
    ("voc", "Annotations/a.xml", "<xmax>14<", "<xmax>44<", "a.xml:3: fields xmin,ymin,xmax,ymax: box (4.0, 2.0, 44.0"),
    ("voc", "Annotations/a.xml", "<name>robin</name>", "", "a.xml:3: field name: the object has no name"),
    ("voc", "Annotations/a.xml", "bndbox", "box", "a.xml:3: field bndbox: four numbers are needed"),
    ("voc", "Annotations/a.xml", "<width>40<", "<width>80<", "a.xml:1: fields width, height: 80 x 20, but"),
    ("voc", "Annotations/a.xml", "annotation>", "data>", "a.xml:1: element data: VOC's files begin with <annotation>"),
    ("label_studio", "export.json", '"x": 10.0', '"x": "10"', "[0]: field annotations[0].result[0].value.x: Input"),
    ("label_studio", "export.json", '"x": 10.0', '"x": NaN', "export.json:1: broken JSON: NaN is not a JSON number"),
    ("label_studio", "export.json", '"x": 10.0', f'"x": {NINES}', "[0]: field annotations[0].result[0].value.x: Input"),
    ("label_studio", "export.json", '"x": 10.0', '"x": 90.0', "field annotations[0].result[0].value: box ("),
    ("label_studio", "export.json", '"image_rotation": 0', '"image_rotation": 90', "field image_rotation: boxes on a"),
    ("label_studio", "export.json", '"image": "/data/upload/1/00000001-a.jpg"', '"text": "red"', "[0]: field data: no"),
    ("label_studio", "export.json", '"original_width": 40', '"original_width": 41', "fields width, height: 41 x 20"),
    ("label_studio", "export.json", '[{"id"', '{"id"', "export.json:1: broken JSON"),
    ("cvat", "annotations.xml", "<image ", "<frame ", "annotations.xml:6: broken XML: mismatched tag"),
    ("cvat", "annotations.xml", 'xtl="4.00"', 'xtl="a"', "annotations.xml:5: field xtl: a number is needed, got 'a'"),
    ("cvat", "annotations.xml", 'xtl="4.00"', 'xtl="inf"', "annotations.xml:5: fields xtl,ytl,xbr,ybr: a box needs"),
    ("cvat", "annotations.xml", 'xbr="14.00"', 'xbr="2.00"', "annotations.xml:5: fields xtl,ytl,xbr,ybr: box (4.0"),
    ("cvat", "annotations.xml", 'label="robin"', "", "annotations.xml:5: field label: the box has none"),
    ("cvat", "annotations.xml", 'name="a.jpg"', 'name="z.jpg"', "annotations.xml:4: field name: no such image"),
    ("labelme", "a.json", "[[4, 2], [14, 10]]", "[[4, 2]]", "a.json: shapes[0]: field points: a rectangle has at leas"),
    ("labelme", "a.json", "[[4, 2], [14, 10]]", "[[4, 2], [14]]", "a.json: field shapes[0].points[1]: List should hav"),
    ("labelme", "a.json", "[[4, 2], [14, 10]]", "[[4, 2], [4, 10]]", "a.json: shapes[0]: field points: box (4.0, 2.0,"),
    ("labelme", "a.json", "[14, 10]", f"[{NINES}, 10]", "a.json: field shapes[0].points[1][0]: Input should be"),
    ("labelme", "a.json", '"label": "robin", ', "", "a.json: field shapes[0].label: is missing; is it a file of label"),
    ("labelme", "a.json", '"a.jpg", "imageData": null', '"z.jpg", "imageData": "#"', "a.json: field imageData: not ba"),
    ("hf", "train/metadata.jsonl", '"bbox": [[4', '"bbox": [[', "metadata.jsonl:1: broken JSON at column"),
    ("hf", "train/metadata.jsonl", "[[4, 2, 10, 8]]", "[[4, 2, 10]]", "metadata.jsonl:1: field objects: field bbox[0]"),
    ("hf", "train/metadata.jsonl", "[[4, 2, 10, 8]]", "[[4, 2, 0, 8]]", "metadata.jsonl:1: field objects.bbox[0]: box"),
    ("hf", "train/metadata.jsonl", "[[4, 2", f"[[{NINES}, 2", "metadata.jsonl:1: field objects: field bbox[0][0]: Inp"),
    ("hf", "train/metadata.jsonl", '["robin"]', "[0]", "metadata.jsonl:1: field objects: field names[0]: Input should"),
    ("hf", "train/metadata.jsonl", '["robin"]', "[]", "metadata.jsonl:1: field objects: 1 boxes, but 0 names for them"),
    ("hf", "train/metadata.jsonl", "a.jpg", "z.jpg", "metadata.jsonl:1: field image: no such image"),
    ("hf", "train/metadata.jsonl", "file_name", "picture", "metadata.jsonl:1: field image: no image is named"),
    ("inaturalist", "train.json", '"image_id": 0', '"image_id": 4', "annotations[0]: fields image_id, category_id: no"),
    ("inaturalist", "train.json", "train/a.jpg", "train/z.jpg", "images[0]: field file_name: no such image"),
    ("inaturalist", "train.json", '"name": "robin"', '"name": ""', "categories[0]: field name: a name is needed, got"),
    ("darwin_core", "meta.xml", "occurrence.txt", "../own/a.jpg", "field location: '../own/a.jpg' is not a file of th"),
    ("darwin_core", "meta.xml", "occurrence.txt", "/etc/passwd", "field location: '/etc/passwd' is not a file of the"),
    ("darwin_core", "meta.xml", "occurrence.txt", "none.txt", "darwin_core: no file none.txt in it"),
    ("darwin_core", "meta.xml", 'field index="2"', 'field index="x"', "field index: a small whole number is needed"),
    ("darwin_core", "meta.xml", 'encoding="UTF-8"', 'encoding="x"', "occurrence.txt: cannot be read as meta.xml"),
    ("darwin_core", "meta.xml", 'Lines="1"', f'Lines="{NINES}"', "field index: a small whole number is needed"),
    ("darwin_core", "meta.xml", 'By="\\t"', 'By="||"', "occurrence.txt: cannot be read as meta.xml describes it"),
    ("darwin_core", "meta.xml", 'field index="2"', 'field index="8"', "2: 3 cells, but meta.xml names number 9"),
    ("darwin_core", "multimedia.txt", "\n0\t", "\n7\t", "multimedia.txt:2: field coreid: '7' is not the id of an"),
    ("darwin_core", "multimedia.txt", "a.jpg", "z.jpg", "no image shows exactly one kind (not among the files: 1)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    REPLACED,
    ids=[f"{row[0]}-{row[4][:40]}" for row in REPLACED],
)
def test_errors_name_file_place_and_field(
    tmp_path: Path, name: str, file: str, old: str, new: str, message: str
) -> None:
    path = export(name, tmp_path)
    text = (tmp_path / name / file).read_text()
    assert old in text, text
    (tmp_path / name / file).write_text(text.replace(old, new))
    fails(name, path, message, whole_image_boxes=name in WITHOUT_BOXES)


BOMB = """<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""
OTHER_FILE = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>'


@pytest.mark.parametrize("name, file", [("voc", "a.xml"), ("cvat", "annotations.xml"), ("darwin_core", "meta.xml")])
@pytest.mark.parametrize("text", [BOMB, OTHER_FILE], ids=["bomb", "other file"])
def test_entities_are_refused_where_they_are_declared(tmp_path: Path, name: str, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    fails(name, tmp_path, f"{file}:1: entity 'a' is declared; write out what it stands for")
    (tmp_path / file).write_text("<a>" * 60 + "</a>" * 60)
    fails(name, tmp_path, f"{file}:1: nested more than 50 levels deep")


@pytest.mark.parametrize("named", ["/own/secret.jpg", "../own/secret.jpg", "C:\\own\\secret.jpg", "link/secret.jpg"])
@pytest.mark.parametrize("name", ["voc", "cvat", "labelme", "label_studio", "hf", "inaturalist"])
def test_an_image_outside_the_folder_is_not_taken(tmp_path: Path, name: str, named: str) -> None:
    path = export(name, tmp_path)
    for image in (tmp_path / name).rglob("*.jpg"):
        image.unlink()
    draw(tmp_path / "own" / "secret.jpg")
    os.symlink(tmp_path / "own", tmp_path / name / "link")
    named = named.replace("/own", str(tmp_path / "own")) if named.startswith("/") else named
    for file in [file for kind in ("xml", "json", "jsonl") for file in (tmp_path / name).rglob(f"*.{kind}")]:
        for old in ("/data/upload/1/00000001-a.jpg", "train/a.jpg", "a.jpg"):
            file.write_text(file.read_text().replace(json.dumps(old)[1:-1], json.dumps(named)[1:-1]))
    with pytest.raises(SourceError, match="no such image|a link that leads out of"):
        read(name, path, domain="bird", whole_image_boxes=True)


def packed(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


LABELS = {"label": "robin", "objects": {"bbox": [[4, 2, 10, 8]]}}
BAD_TARS: list[tuple[dict[str, bytes], str]] = [
    ({"../a.jpg": b""}, "member '../a.jpg': its name leads out of the archive"),
    ({"/etc/a.jpg": b""}, "member '/etc/a.jpg': its name leads out of the archive"),
    ({"a.json": json.dumps(LABELS).encode()}, "t.tar: a: no image among json"),
    ({"a.jpg": b"<html>", "a.json": json.dumps(LABELS).encode()}, "t.tar: a: field image: t/a: not an image"),
    ({"a.jpg": b"", "a.json": b'{"label":'}, "t.tar: a.json:1: broken JSON"),
    ({"a.jpg": b"", "a.json": b"[]"}, "t.tar: a.json: Input should be a valid dictionary"),
    ({"a.jpg": b"", "a.cls": b"7"}, "t.tar: a.cls: class 7 has no name; write the names into classes.txt"),
    ({"a.jpg": b"", "a.cls": NINES.encode()}, "t.tar: a.cls: class 999"),
    ({}, "t.tar: no image shows exactly one kind (it holds no image)"),
]


@pytest.mark.parametrize(("members", "message"), BAD_TARS, ids=[message[:40] for _, message in BAD_TARS])
def test_bad_tar_files(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    fails("webdataset", packed(tmp_path / "t.tar", members), message)
    assert not (tmp_path / "photos").exists()


def test_torn_archives(tmp_path: Path) -> None:
    whole = packed(tmp_path / "t.tar", {"a.jpg": draw(tmp_path / "a.jpg").read_bytes() * 3}).read_bytes()
    (tmp_path / "t.tar").write_bytes(whole[:900])
    fails("webdataset", tmp_path / "t.tar", "t.tar: not a complete tar file")
    fails("webdataset", tmp_path / "none.tar", "none.tar: no such tar file")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    fails("darwin_core", tmp_path / "a.zip", "a.zip: not a complete zip file")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../meta.xml", META)
    fails("darwin_core", tmp_path / "b.zip", "b.zip: no file meta.xml in it")


def fiftyone(folder: Path, change: Callable[[dict[str, Any]], object] = lambda sample: None) -> Path:
    draw(folder / "data" / "a.jpg")
    mark = {"_cls": "Detection", "label": "robin", "bounding_box": [0.1, 0.1, 0.25, 0.4], "tags": []}
    sample: dict[str, Any] = {
        "filepath": "data/a.jpg", "tags": ["train"], "metadata": {"_cls": "ImageMetadata", "width": 40, "height": 20},
        "ground_truth": {"_cls": "Detections", "detections": [mark]},
    }  # fmt: skip
    change(sample)
    (folder / "samples.json").write_text(json.dumps({"samples": [sample]}))
    return folder


BAD_SAMPLES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("samples[0]: field filepath: is missing", lambda s: s.pop("filepath")),
    ("samples[0]: field filepath: no such image", lambda s: s.update(filepath="data/z.jpg")),
    ("samples[0]: fields width, height: 80 x 20", lambda s: s["metadata"].update(width=80)),
    (
        "samples[0]: field ground_truth.detections[0].bounding_box: box (",
        lambda s: s["ground_truth"]["detections"][0].update(bounding_box=[0.9, 0.1, 0.25, 0.4]),
    ),
    (
        "samples[0]: field ground_truth.detections[0]: field bounding_box: List",
        lambda s: s["ground_truth"]["detections"][0].update(bounding_box=[0.9]),
    ),
    ("field ground_truth.detections[0]: field label: the", lambda s: s["ground_truth"]["detections"][0].pop("label")),
    (
        "fields with labels: people, model; name one with --column entity=FIELD",
        lambda s: s.update(people=s["ground_truth"], model=s.pop("ground_truth")),
    ),
]


@pytest.mark.parametrize(("message", "change"), BAD_SAMPLES, ids=[message[:40] for message, _ in BAD_SAMPLES])
def test_fiftyone_errors_name_sample_and_field(tmp_path: Path, message: str, change: Any) -> None:
    fails("fiftyone", fiftyone(tmp_path, change), message)


def test_every_fault_is_collected_where_that_is_asked_for(tmp_path: Path) -> None:
    shots = [Shot(draw(tmp_path / f"{name}.jpg"), (40, 20), "robin", ((4, 2, 14, 10),)) for name in "abc"]
    root = as_voc(tmp_path / "voc", shots)
    for name in "ac":
        file = root / "Annotations" / f"{name}.xml"
        file.write_text(file.read_text().replace("<xmax>14", "<xmax>94"))
    found: list[str] = []
    (photo,) = read("voc", root, domain="bird", on_error=lambda error: found.append(str(error)))
    assert photo.id == "Annotations/b" and ["a.xml:3" in found[0], "c.xml:3" in found[1]] == [True, True]


def test_columns_that_a_source_does_not_have_are_refused(tmp_path: Path) -> None:
    path = export("voc", tmp_path)
    fails("voc", path, "--column entity=kind: source voc has no such column", columns={"entity": "kind"})
    path = as_inaturalist(tmp_path / "i", [Shot(draw(tmp_path / "a.jpg"), (40, 20), "robin", ())])
    fails("inaturalist", path, "categories[0]: field nick: a name", columns={"entity": "nick"}, whole_image_boxes=True)
