"""Exports as the tools' own documentation shows them: their files, fields and spellings, with small drawn images."""

from __future__ import annotations

import json
import logging
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from mllm.boxes import Box
from mllm.data.sources import SourceError
from mllm.io.images import open_image
from mllm.records import Photo
from tests.data.sources.test_sources import draw, read
from tests.support.exports import Shot, as_voc, as_yolo

WREN = Box(0.1, 0.1, 0.35, 0.5)
"""4, 2, 14, 10 on 40 x 20 pixels."""


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def close(box: Box, other: Box = WREN) -> bool:
    return astuple(box) == pytest.approx(astuple(other), abs=1e-6)


COCO8 = """path: coco8 # dataset root dir
train: images/train # train images (relative to 'path') 4 images
val: images/val # val images (relative to 'path') 4 images
test: # test images (optional)
names:
  0: person
  1: wren
download: https://example.org/coco8.zip
"""
ROBOFLOW = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['person', 'wren']\n"


@pytest.mark.parametrize(
    "yaml, train, val", [(COCO8, "images/train", "images/val"), (ROBOFLOW, "train/images", "valid/images")]
)
def test_yolo_as_ultralytics_and_roboflow_write_it(tmp_path: Path, yaml: str, train: str, val: str) -> None:
    write(tmp_path / "data.yaml", yaml)
    for number, folder in enumerate((train, val)):
        draw(tmp_path / folder / f"{number}.jpg")
    write(tmp_path / train.replace("images", "labels") / "0.txt", "1 0.225 0.3 0.25 0.4\n")
    write(tmp_path / val.replace("images", "labels") / "1.txt", "1 0.1 0.1 0.35 0.1 0.35 0.5 0.1 0.5\n")
    draw(tmp_path / train / "background.jpg")
    for path in (tmp_path, tmp_path / "data.yaml"):
        box, outline = read("yolo", path, domain="bird")
        assert [one.entity for one in (box, outline)] == ["wren", "wren"] and box.id == f"{train}/0.jpg"
        assert close(box.boxes[0]) and close(outline.boxes[0]) and box.use is None


def test_yolo_lists_of_images_keypoints_and_classes_txt(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.jpg")
    label = write(tmp_path / "labels" / "a.txt", "0 0.225 0.3 0.25 0.4\n")
    write(tmp_path / "classes.txt", "wren\n")
    (photo,) = read("yolo", tmp_path, domain="bird")
    assert photo.entity == "wren"
    write(tmp_path / "list.txt", "./images/a.jpg\n")
    write(tmp_path / "data.yaml", "train: list.txt\nval: list.txt\nnames: [wren]\nkpt_shape: [2, 3]\n")
    label.write_text("0 0.225 0.3 0.25 0.4 0.2 0.2 2 0.3 0.3 1\n")
    (photo,) = read("yolo", tmp_path, domain="bird")
    assert close(photo.boxes[0])
    label.write_text("0 0.5 0.5 1.0000004 1\n")
    assert read("yolo", tmp_path, domain="bird")[0].boxes == (Box(0, 0, 1, 1),), "rounded, not outside"


VOC = """<annotation>
	<folder>VOC2012</folder>
	<filename>a.jpg</filename>
	<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation></source>
	<size><width>40</width><height>20</height><depth>3</depth></size>
	<segmented>0</segmented>
	<object>
		<name>person</name>
		<pose>Unspecified</pose>
		<truncated>1</truncated>
		<difficult>1</difficult>
		<bndbox><xmin>5</xmin><ymin>3</ymin><xmax>14</xmax><ymax>10</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>6</xmin><ymin>3</ymin><xmax>8</xmax><ymax>4</ymax></bndbox></part>
	</object>
</annotation>"""


def test_voc_parts_flags_renamed_files_and_tools_that_count_from_0(tmp_path: Path) -> None:
    file = write(tmp_path / "VOC2012" / "Annotations" / "a.xml", VOC)
    image = draw(tmp_path / "VOC2012" / "JPEGImages" / "a.jpg")
    (photo,) = read("voc", tmp_path, domain="bird")
    assert photo.boxes == (WREN,) and photo.entity == "person", "parts are no objects of their own"
    assert photo.provenance == {"source": "voc", "difficult": 1, "truncated": 1}
    file.write_text(VOC.replace("a.jpg", "before.jpg").replace(">5<", ">0<").replace(">3<", ">0<", 3))
    (photo,) = read("voc", tmp_path, domain="bird")
    assert Path(photo.image) == image.resolve() and photo.boxes == (Box(0, 0, 0.35, 0.5),)


def test_a_division_by_kind_is_kept_and_any_other_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shots = [
        Shot(draw(tmp_path / f"{n}.jpg", (40 + n, 20)), (40 + n, 20), "ab"[n % 2], ((4, 2, 14, 10),)) for n in range(4)
    ]
    root = as_voc(tmp_path / "voc", shots)
    write(root / "ImageSets" / "Main" / "train.txt", "0\n2\n")
    write(root / "ImageSets" / "Main" / "val.txt", "1\n3\n")
    assert {photo.entity: photo.use for photo in read("voc", root, domain="bird")} == {"a": "train", "b": "validation"}
    write(root / "ImageSets" / "Main" / "val.txt", "1\n2\n3\n")
    with caplog.at_level(logging.WARNING):
        assert {photo.use for photo in read("voc", root, domain="bird")} == {None}
    assert "its division of the images (train 1, validation 3) is not used" in caplog.text


TASK: dict[str, Any] = {
    "id": 1, "data": {"image": "https://example.org/opensource/label-studio/1.jpg"}, "project": 83,
    "annotations": [{"id": "1001", "was_cancelled": False, "ground_truth": False, "result": [{
        "from_name": "tag", "id": "Dx", "source": "$image", "to_name": "img", "type": "rectanglelabels",
        "value": {"height": 40.0, "rectanglelabels": ["Moonwalker"], "rotation": 0, "width": 25.0, "x": 10, "y": 10},
    }]}],
    "predictions": [{"model_version": "model 1", "result": [{"type": "rectanglelabels", "value": {
        "height": 11.6, "rectanglelabels": ["Other"], "rotation": 0, "width": 39.6, "x": 13.2, "y": 34.7}}]}],
}  # fmt: skip


def studio(folder: Path, *tasks: Any) -> list[Photo]:
    draw(folder / "1.jpg")
    return read("label_studio", write(folder / "export.json", list(tasks)), domain="bird", whole_image_boxes=True)


def test_label_studio_tasks_and_json_min(tmp_path: Path) -> None:
    (photo,) = studio(tmp_path, TASK)
    assert photo.entity == "Moonwalker" and photo.id == "1" and close(photo.boxes[0])
    value = TASK["annotations"][0]["result"][0]["value"]
    (photo,) = studio(
        tmp_path, {"image": TASK["data"]["image"], "tag": [value | {"original_width": 40, "original_height": 20}]}
    )
    assert photo.entity == "Moonwalker" and close(photo.boxes[0])
    draw(tmp_path / "sub" / "0123abcd-b.jpg")
    local = {"image": "/data/local-files/?d=sub/0123abcd-b.jpg", "tag": [value]}
    assert Path(studio(tmp_path, local)[0].image).name == "0123abcd-b.jpg"
    draw(tmp_path / "images" / "7.jpg")
    assert Path(studio(tmp_path, {"id": 7, "image": "s3://bucket/lost.jpg", "tag": [value]})[0].image).name == "7.jpg"


def test_label_studio_turned_boxes_outlines_choices_and_several_annotations(tmp_path: Path) -> None:
    def marked(value: dict[str, Any], **more: Any) -> dict[str, Any]:
        mark = {"value": value, "original_width": 40, "original_height": 20, "image_rotation": 0}
        return {"id": 1, "data": {"image": "1.jpg"}, "annotations": [{"result": [mark], **more}]}

    # turned by 90 degrees about its first corner: 8 wide and 10 high before, to the left of the corner afterwards
    quarter = {"x": 35.0, "y": 10.0, "width": 20.0, "height": 50.0, "rotation": 90, "rectanglelabels": ["wren"]}
    assert close(studio(tmp_path, marked(quarter))[0].boxes[0])
    outline = {"points": [[10, 20], [35, 10], [20, 50]], "polygonlabels": ["wren"], "closed": True}
    assert close(studio(tmp_path, marked(outline))[0].boxes[0])
    ellipse = {"x": 22.5, "y": 30, "radiusX": 12.5, "radiusY": 20, "rotation": 0, "ellipselabels": ["wren"]}
    assert close(studio(tmp_path, marked(ellipse))[0].boxes[0])
    (photo,) = studio(tmp_path, marked({"choices": ["wren"]}))
    assert (photo.entity, photo.boxes) == ("wren", (Box(0, 0, 1, 1),))
    task, remark = marked(outline), marked({"choices": ["uncertain"]})["annotations"][0]["result"]
    task["annotations"][0]["result"] += remark
    assert studio(tmp_path, task)[0].entity == "wren", "a choice beside a shape is a remark on it"
    others = [marked({"choices": [name]}, **more)["annotations"][0] for name, more in (
        ("no", {"was_cancelled": True}), ("first", {}), ("truth", {"ground_truth": True}))]  # fmt: skip
    assert studio(tmp_path, task | {"annotations": others})[0].entity == "truth"
    assert studio(tmp_path, task | {"annotations": others[:2]})[0].entity == "first"
    with pytest.raises(SourceError, match="no image shows exactly one kind .no label: 1"):
        studio(tmp_path, task | {"annotations": others[:1]})


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><id>4</id><name>segmentation</name><size>27</size><mode>annotation</mode><labels><label><name>bird</name>
<attributes><attribute><name>species</name><mutable>False</mutable></attribute></attributes></label></labels></task></meta>
<image id="0" name="a.jpg" subset="Train" width="40" height="20">
  <box label="bird" occluded="1" source="manual" xtl="4.00" ytl="2.00" xbr="14.00" ybr="10.00" z_order="0">
    <attribute name="species">wren</attribute></box>
  <polygon label="bird" occluded="0" points="20.00,2.00;30.00,4.00;24.00,10.00" z_order="1">
    <attribute name="species">wren</attribute></polygon>
  <ellipse label="bird" occluded="0" cx="9.00" cy="15.00" rx="5.00" ry="2.00">
    <attribute name="species">wren</attribute></ellipse>
  <box label="bird" occluded="0" xtl="30.00" ytl="8.00" xbr="34.00" ybr="18.00" rotation="90.0">
    <attribute name="species">wren </attribute></box>
  <points label="bird" points="1.0,1.0"/>
</image>
<image id="1" name="b.jpg" width="40" height="20">
  <tag label="bird" source="manual"><attribute name="species">owl</attribute></tag>
</image>
</annotations>"""


def test_cvat_shapes_attributes_tags_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "annotations.xml", CVAT)
    draw(tmp_path / "images" / "Train" / "a.jpg")
    draw(tmp_path / "images" / "b.jpg")
    first, second = read("cvat", tmp_path, domain="bird", whole_image_boxes=True, columns={"entity": "species"})
    assert (first.entity, second.entity, second.boxes) == ("wren", "owl", (Box(0, 0, 1, 1),))
    wanted = [WREN, Box(0.5, 0.1, 0.75, 0.5), Box(0.1, 0.65, 0.35, 0.85), Box(27 / 40, 11 / 20, 37 / 40, 15 / 20)]
    assert all(close(box, other) for box, other in zip(first.boxes, wanted, strict=True))
    assert first.provenance == {"source": "cvat", "occluded": 1, "not read": {"points": 1}}
    assert {photo.entity for photo in read("cvat", tmp_path, domain="bird", whole_image_boxes=True)} == {"bird"}


def test_labelme_shapes_flags_and_images_inside(tmp_path: Path) -> None:
    import base64

    corners = [[14, 2], [4, 2], [4, 10], [14, 10]]  # older files name no shape_type: outlines
    old = {
        "flags": {},
        "shapes": [{"label": "person", "line_color": None, "points": corners}],
        "lineColor": [0, 255, 0, 128],
    }
    write(tmp_path / "a.json", old | {"imagePath": "..\\photos\\a.jpg", "imageData": None})
    draw(tmp_path / "a.jpg")
    circle = {"label": "wren", "points": [[9, 10], [9, 15]], "shape_type": "circle", "group_id": 1}
    point = {"label": "eye", "points": [[9, 10]], "shape_type": "point"}
    inside = base64.b64encode(draw(tmp_path / "own" / "b.jpg").read_bytes()).decode()
    write(tmp_path / "b.json", {"version": "5", "shapes": [circle, point], "imagePath": "b.jpg", "imageData": inside})
    draw(tmp_path / "c.jpg")
    write(
        tmp_path / "c.json", {"version": "5", "flags": {"owl": True, "wren": False}, "shapes": [], "imagePath": "c.jpg"}
    )
    found = read("labelme", tmp_path, domain="bird", whole_image_boxes=True, out=tmp_path / "out")
    assert [photo.entity for photo in found] == ["person", "wren", "owl"]
    assert close(found[0].boxes[0]) and close(found[1].boxes[0], Box(0.1, 0.25, 0.35, 0.75))
    assert found[1].provenance["not read"] == {"point": 1} and open_image(tmp_path / "out" / found[1].image).size == (
        40,
        20,
    )


def test_images_that_were_turned_after_the_boxes_were_drawn(tmp_path: Path) -> None:
    shot = Shot(draw(tmp_path / "a.jpg", orientation=6), (40, 20), "robin", ((4, 2, 14, 10),))
    (photo,) = read("voc", as_voc(tmp_path / "voc", [shot]), domain="bird")
    assert photo.size.height == 40 and photo.boxes == (WREN.oriented(6),)
    (photo,) = read("yolo", as_yolo(tmp_path / "yolo", [shot]), domain="bird")  # names no size: as the image is seen
    assert close(photo.boxes[0])
