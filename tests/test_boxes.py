"""Frames, boxes and IoU: properties, the eight EXIF orientations against Pillow, and published detection scores."""

from __future__ import annotations

import json
import math
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mllm.boxes import Box, Frame, iou, iou_xyxy
from mllm.errors import BoxError, FieldmarkError
from tests.support.strategies import FRAMES, boxes

NEAR = dict(rel_tol=1e-9, abs_tol=1e-9)


@given(boxes(), FRAMES)
def test_numbers_go_to_a_frame_and_back(box: Box, frame: Frame) -> None:
    back = Box.from_xyxy(box.to_xyxy(frame), frame)
    assert all(
        math.isclose(a, b, **NEAR) for a, b in zip(back.to_xyxy(Frame(1, 1)), box.to_xyxy(Frame(1, 1)), strict=True)
    )


@given(boxes(), FRAMES)
def test_xywh_and_xyxy_say_the_same(box: Box, frame: Frame) -> None:
    x1, y1, x2, y2 = box.to_xyxy(frame)
    back = Box.from_xywh((x1, y1, x2 - x1, y2 - y1), frame)
    assert iou(back, box) > 1 - 1e-6


@given(boxes(), boxes())
def test_iou_is_symmetric_between_0_and_1(a: Box, b: Box) -> None:
    assert 0 <= iou(a, b) <= 1
    assert iou(a, b) == iou(b, a)


@given(boxes())
def test_a_box_is_itself(box: Box) -> None:
    assert iou(box, box) == 1


@given(boxes(1e-3), boxes(1e-3), FRAMES)
def test_iou_needs_no_frame(a: Box, b: Box, frame: Frame) -> None:
    assert iou_xyxy(a.to_xyxy(frame), b.to_xyxy(frame)) == pytest.approx(iou(a, b), abs=1e-9)


@given(boxes(1e-3), boxes(1e-3), boxes(1e-2))
def test_pasting_both_keeps_iou_and_stays_inside(a: Box, b: Box, window: Box) -> None:
    pasted = a.inside(window)
    assert iou(pasted, b.inside(window)) == pytest.approx(iou(a, b), abs=1e-6)
    assert pasted.x1 >= window.x1 and pasted.y1 >= window.y1
    assert pasted.x2 <= window.x2 + 1e-12 and pasted.y2 <= window.y2 + 1e-12
    assert pasted.area == pytest.approx(a.area * window.area)


def test_the_whole_image_is_its_window() -> None:
    window = Box(0.25, 0.5, 0.75, 1)
    assert Box(0, 0, 1, 1).inside(window) == window
    assert Box(0.5, 0, 1, 0.5).inside(window) == Box(0.5, 0.5, 0.75, 0.75)


def test_known_overlaps() -> None:
    assert iou(Box(0, 0, 0.5, 0.5), Box(0.25, 0, 0.75, 0.5)) == pytest.approx(1 / 3)
    assert iou(Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 1, 1)) == 0  # they touch


def test_raw_numbers_are_not_clipped() -> None:
    assert iou_xyxy((0, 0, 2000, 1000), (0, 0, 1000, 1000)) == 0.5
    assert iou_xyxy((-1000, 0, 1000, 1000), (0, 0, 1000, 1000)) == 0.5
    assert iou_xyxy((500, 0, 100, 10), (0, 0, 1000, 1000)) == 0  # inverted
    assert iou_xyxy((5, 5, 5, 5), (5, 5, 5, 5)) == 0  # empty
    assert iou_xyxy((0, 0, 1e300, 1e300), (0, 0, 1e300, 1e300)) == 0  # overflows, does not raise


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=8, max_size=8))
def test_any_finite_numbers_have_an_iou(numbers: list[float]) -> None:
    assert 0 <= iou_xyxy(numbers[:4], numbers[4:]) <= 1


@pytest.mark.parametrize(
    "numbers",
    [
        (-0.1, 0, 1, 1),
        (0, 0, 1.001, 1),
        (0, 0, 1, 2),
        (0.5, 0, 0.5, 1),
        (0.6, 0, 0.5, 1),
        (0, 0.6, 1, 0.5),
        (0, 0, math.nan, 1),
        (0, 0, math.inf, 1),
        (0, 0, True, 1),
        (0, 0, "1", 1),
        (0, 0, None, 1),
    ],
)
def test_nothing_else_is_a_box(numbers: tuple) -> None:
    with pytest.raises(BoxError):
        Box(*numbers)


@pytest.mark.parametrize("sides", [(0, 1), (1, -1), (math.nan, 1), (math.inf, 1), ("1", 1), (True, 1)])
def test_a_frame_has_an_area(sides: tuple) -> None:
    with pytest.raises(BoxError):
        Frame(*sides)


def test_numbers_of_another_frame_are_refused_not_clamped() -> None:
    frame = Frame(640, 480)
    with pytest.raises(BoxError, match="640 x 480"):
        Box.from_xyxy((100, 100, 700, 200), frame)
    assert Box.from_xyxy((-5, 100, 700, 200), frame, clip=True) == Box(0, 100 / 480, 1, 200 / 480)
    with pytest.raises(BoxError, match="is outside its frame"):
        Box.from_xyxy((650, 100, 700, 200), frame, clip=True)
    for clip in (False, True):
        with pytest.raises(BoxError, match="inverted"):
            Box.from_xyxy((300, 100, 200, 200), frame, clip=clip)
        with pytest.raises(BoxError, match="empty"):
            Box.from_xywh((300, 100, 0, 20), frame, clip=clip)
    with pytest.raises(BoxError, match="four"):
        Box.from_xyxy((1, 2, 3), frame)


def test_rounding_at_the_edge_is_forgiven() -> None:
    assert Box.from_xywh((0.1, 0, 0.2, 0.3), Frame(0.3, 0.3)).x2 == 1  # 0.1 + 0.2 > 0.3
    numbers: list[Any] = list(np.array([0, 0, 5, 5], dtype=np.float32))  # no Python floats
    assert Box.from_xyxy(numbers, Frame(10, 10)) == Box(0, 0, 0.5, 0.5)


def test_boxes_are_values() -> None:
    box = Box(0.1, 0.2, 0.3, 0.4)
    assert pickle.loads(pickle.dumps(box)) == box and len({box, Box(0.1, 0.2, 0.3, 0.4)}) == 1
    assert box.center == pytest.approx((0.2, 0.3)) and box.width == pytest.approx(0.2)
    with pytest.raises(AttributeError):
        box.x1 = 0  # type: ignore[misc]
    assert issubclass(BoxError, FieldmarkError) and issubclass(FieldmarkError, ValueError)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_follows_its_image_through_every_exif_orientation(orientation: int) -> None:
    size, numbers = (60, 40), (6, 4, 30, 12)
    img = Image.new("L", size)
    img.paste(255, numbers)
    exif = Image.Exif()
    exif[0x0112] = orientation
    img.info["exif"] = exif.tobytes()
    img.getexif().load(exif.tobytes())

    turned = ImageOps.exif_transpose(img)  # Pillow's own transposition is the judge
    frame = Frame(*size).oriented(orientation)
    assert (frame.width, frame.height) == turned.size
    box = Box.from_xyxy(numbers, Frame(*size)).oriented(orientation)
    assert box.to_xyxy(frame) == pytest.approx(turned.getbbox())


@pytest.mark.parametrize("orientation", [0, 9, -1])
def test_an_unknown_orientation_is_an_error(orientation: int) -> None:
    with pytest.raises(BoxError, match="orientation"):
        Box(0, 0, 1, 1).oriented(orientation)


# Against published numbers --------------------------------------------------------------------------------------------


def average_precision(detections: list[dict], truths: list[dict], sizes: dict[int, Frame], threshold: float) -> float:
    """COCO's AP at one IoU threshold: greedy matching by score in each image, 101 recall points, mean of classes."""
    truth_of, found_of = defaultdict(list), defaultdict(list)
    for rows, into in ((truths, truth_of), (detections, found_of)):
        for row in rows:
            box = Box.from_xywh(row["bbox"], sizes[row["image_id"]])
            into[row["category_id"], row["image_id"]].append((row.get("score", 0.0), box))
    precisions = []
    for category in {row["category_id"] for row in truths}:
        marked: list[tuple[float, bool]] = []
        total = 0
        for image in sorted(sizes):  # images by id: equal scores are common and their order counts
            left = [box for _, box in truth_of[category, image]]
            total += len(left)
            for score, box in sorted(found_of[category, image], key=lambda item: -item[0]):
                best = max(left, key=lambda truth: iou(box, truth), default=None)
                hit = best is not None and iou(box, best) >= threshold
                if hit:
                    left.remove(best)
                marked.append((score, hit))
        hits = np.cumsum([hit for _, hit in sorted(marked, key=lambda item: -item[0])])
        recall, precision = hits / total, hits / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        precisions.append(np.mean([float(precision[place]) if place < len(precision) else 0.0 for place in places]))
    return float(np.mean(precisions))


@pytest.mark.parametrize(("name", "threshold"), [("AP50", 0.5), ("AP75", 0.75)])
def test_iou_reproduces_the_coco_apis_own_scores(shared_data: Path, name: str, threshold: float) -> None:
    folder = shared_data / "box_metric_fixtures"
    truths = json.loads((folder / "coco_100" / "gts.json").read_text())
    detections = json.loads((folder / "coco_100" / "dets.json").read_text())["annotations"]
    sizes = {image["id"]: Frame(image["width"], image["height"]) for image in truths["images"]}
    expected = json.loads((folder / "expected.json").read_text())["coco_100"][name]
    assert average_precision(detections, truths["annotations"], sizes, threshold) == pytest.approx(expected, abs=1e-6)


def test_one_detection_in_three_notations_is_one_box(shared_data: Path) -> None:
    folder = shared_data / "box_metric_fixtures" / "toyexample"
    seen = 0
    for file in sorted((folder / "dets_classid_abs_xywh").glob("*.txt")):
        size = ElementTree.parse(folder / "gts_vocpascal_format" / f"{file.stem}.xml").find("size")
        assert size is not None
        frame = Frame(*(int(size.findtext(side) or 0) for side in ("width", "height")))
        rows = [
            [[float(n) for n in line.split()[2:]] for line in (folder / kind / file.name).read_text().splitlines()]
            for kind in ("dets_classid_abs_xywh", "dets_classid_abs_xyx2y2", "dets_classid_rel_xcycwh")
        ]
        for xywh, xyxy, (x, y, w, h) in zip(*rows, strict=True):
            box = Box.from_xyxy(xyxy, frame, clip=True)
            assert iou(box, Box.from_xywh(xywh, frame, clip=True)) == pytest.approx(1)
            relative = Box.from_xyxy((x - w / 2, y - h / 2, x + w / 2, y + h / 2), Frame(1, 1), clip=True)
            assert iou(box, relative) > 0.97  # that file starts counting pixels elsewhere
            seen += 1
    assert seen > 10


def test_numbers_of_hundreds_of_digits_are_no_box() -> None:
    for read in (Box.from_xyxy, Box.from_xywh):
        with pytest.raises(BoxError, match="four finite numbers"):
            read((0, 0, 10**400, 5), Frame(10, 10))
