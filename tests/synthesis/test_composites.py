"""Composites: nothing overlaps, aspect is kept, and a thing's box still encloses the thing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.synthesis.composites import LAYOUTS, Cell, arrange, edge_colour, layouts_for, paste

SIZES = st.lists(st.tuples(st.integers(24, 160), st.integers(24, 160)), min_size=2, max_size=6)


@st.composite
def arrangements(draw: st.DrawFn) -> tuple[list[tuple[int, int]], str, int, int, int]:
    sizes = draw(SIZES)
    layout = draw(st.sampled_from(layouts_for(len(sizes))))
    return sizes, layout, draw(st.integers(64, 600)), draw(st.sampled_from((0, 6, 12))), draw(st.integers(0, 999))


@given(arrangements())
def test_cells_lie_on_the_canvas_apart_and_keep_their_aspect(case: tuple) -> None:
    sizes, layout, max_side, gap, seed = case
    placed = arrange(layout, sizes, random.Random(seed), max_side=max_side, gap=gap)
    assert placed == arrange(layout, sizes, random.Random(seed), max_side=max_side, gap=gap)
    assert max(placed.canvas) <= max_side
    for (width, height), cell in zip(sizes, placed.cells, strict=True):
        assert cell.x >= 0 and cell.y >= 0
        assert cell.x + cell.width <= placed.canvas[0] and cell.y + cell.height <= placed.canvas[1]
        assert cell.width <= width and cell.height <= height, "photos are never enlarged"
        # Both sides are rounded to whole pixels: half a pixel each way.
        assert abs(cell.width * height - cell.height * width) <= 0.5 * (width + height) + 1e-6
    for i, a in enumerate(placed.cells):
        for b in placed.cells[i + 1 :]:
            apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
            assert apart, (a, b)


@settings(max_examples=30)
@given(arrangements(), st.randoms(use_true_random=False))
def test_a_box_in_the_composite_encloses_what_it_enclosed_in_the_photo(case: tuple, rng: random.Random) -> None:
    sizes, layout, max_side, gap, seed = case
    images, boxes = [], []
    for index, (width, height) in enumerate(sizes):
        image = Image.new("RGB", (width, height), (0, 0, 10 * index))
        x1, y1 = rng.randint(0, width - 12), rng.randint(0, height - 12)
        x2, y2 = rng.randint(x1 + 12, width), rng.randint(y1 + 12, height)
        image.paste((255, 0, 0), (x1, y1, x2, y2))
        images.append(image)
        boxes.append(Box.from_xyxy((x1, y1, x2, y2), Frame(width, height)))
    placed = arrange(layout, sizes, random.Random(seed), max_side=max_side, gap=gap)
    canvas = paste(images, placed, (0, 255, 0))
    for index, (box, cell) in enumerate(zip(boxes, placed.cells, strict=True)):
        there = box.inside(placed.window(index)).to_xyxy(Frame(*canvas.size))
        tile = canvas.crop((cell.x, cell.y, cell.x + cell.width, cell.y + cell.height)).getchannel("R")
        left, top, right, bottom = tile.point([0] * 128 + [255] * 128).getbbox() or (0, 0, 0, 0)
        found = (cell.x + left, cell.y + top, cell.x + right, cell.y + bottom)
        assert all(abs(a - b) <= 1 for a, b in zip(there, found, strict=True)), (there, found)


def test_unscaled_pixels_are_the_photo_s_own() -> None:
    images = [Image.effect_noise((96, 96), 80).convert("RGB") for _ in range(5)]
    placed = arrange("grid", [image.size for image in images], random.Random(0), max_side=1024)
    assert placed.canvas == (288, 192)
    canvas = paste(images, placed, (0, 0, 0))
    for image, cell in zip(images, placed.cells, strict=True):
        assert canvas.crop((cell.x, cell.y, cell.x + 96, cell.y + 96)).tobytes() == image.tobytes()


def test_tiles_of_one_size_make_the_pocket_canvases() -> None:
    def canvas(layout: str, count: int) -> tuple[int, int]:
        return arrange(layout, [(96, 96)] * count, random.Random(3), max_side=1024).canvas

    assert [canvas("horizontal", 2), canvas("horizontal", 3)] == [(192, 96), (288, 96)]
    assert [canvas("vertical", 2), canvas("vertical", 3)] == [(96, 192), (96, 288)]
    assert [canvas("grid", count) for count in (4, 5, 6)] == [(192, 192), (288, 192), (288, 192)]
    assert [canvas("free", count) for count in (2, 3, 4)] == [(192, 192)] * 3


def test_layouts_suit_the_count_and_unknown_ones_are_refused() -> None:
    assert layouts_for(2) == ("horizontal", "vertical", "free")
    assert layouts_for(4) == ("grid", "free") and layouts_for(6) == ("grid",)
    assert {name for count in range(1, 7) for name in layouts_for(count)} == set(LAYOUTS)
    with pytest.raises(ValueError, match="horizontal, vertical, grid, free"):
        arrange("spiral", [(9, 9), (9, 9)], random.Random(0), max_side=64)


def test_the_edge_colour_is_the_rim_s() -> None:
    image = Image.new("RGB", (80, 80), (10, 20, 30))
    image.paste((250, 250, 250), (20, 20, 60, 60))
    assert edge_colour(image) == (10, 20, 30)
    assert Cell(0, 0, 1, 1).width == 1
