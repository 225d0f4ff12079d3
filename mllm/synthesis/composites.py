"""Composites: several photos pasted into one image, and where each of them is afterwards.

Photos are shrunk, never enlarged, with their aspect ratio kept; they never overlap. All lengths are in pixels.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from mllm.boxes import Box, Frame

Size = tuple[int, int]
Colour = tuple[int, int, int]
LAYOUTS = {"single": (1, 1), "horizontal": (2, 3), "vertical": (2, 3), "grid": (4, 6), "free": (2, 4)}
"""Fewest and most photos of: one photo as it is, a row of one height, a column of one width, equal cells, loose rows on
a larger canvas."""
MAX_COLUMNS = 3
SLACK = 1.25
"""Width and height of a free canvas relative to its photos, unless the photos are square tiles of one size."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The place of one photo: left, top, width, height, whole pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A canvas and the cell of each photo, in the order of the photos."""

    canvas: Size
    cells: tuple[Cell, ...]

    def window(self, index: int) -> Box:
        """Return the place of photo `index` in the unit frame of the canvas."""
        cell = self.cells[index]
        corners = (cell.x, cell.y, cell.x + cell.width, cell.y + cell.height)
        return Box.from_xyxy(corners, Frame(*self.canvas))


def layouts_for(count: int) -> tuple[str, ...]:
    """Return the layouts for this number of photos (strips of more than three photos become too thin)."""
    return tuple(name for name, (fewest, most) in LAYOUTS.items() if fewest <= count <= most)


def arrange(layout: str, sizes: Sequence[Size], rng: random.Random, *, max_side: int, gap: int = 0) -> Arrangement:
    """Place photos of the given sizes on a canvas whose longer side is at most `max_side` pixels.

    Cells are as large as the smallest photo allows without enlarging any; only `free` draws from `rng`.
    """
    if layout not in LAYOUTS or not sizes:
        raise ValueError(f"cannot arrange {len(sizes)} photos as {layout!r}; layouts: {', '.join(LAYOUTS)}")
    state, scale = rng.getstate(), 1.0
    while True:
        rng.setstate(state)  # the same random numbers at every scale
        fitted = _fit(layout, sizes, scale)
        place = {"single": _row, "horizontal": _row, "vertical": _column, "grid": _grid, "free": _free}[layout]
        canvas, cells = place(fitted, round(gap * scale), rng)
        if max(canvas) <= max_side:
            return Arrangement(canvas, tuple(cells))
        scale *= min(max_side / max(canvas), 0.999)  # rounding up may need another, slightly smaller try


def paste(images: Sequence[Image.Image], arrangement: Arrangement, colour: Colour) -> Image.Image:
    """Paste RGB images into their cells on a canvas of one colour."""
    canvas = Image.new("RGB", arrangement.canvas, colour)
    for image, cell in zip(images, arrangement.cells, strict=True):
        size = (cell.width, cell.height)
        tile = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        canvas.paste(tile, (cell.x, cell.y))
    return canvas


def edge_colour(image: Image.Image) -> Colour:
    """Return the mean colour of an image's outermost pixels, so that a canvas continues its background."""
    small = image.resize((8, 8), Image.Resampling.BOX)
    rim = [small.getpixel((x, y)) for x in range(8) for y in range(8) if x in (0, 7) or y in (0, 7)]
    red, green, blue = (round(sum(channel) / len(rim)) for channel in zip(*rim, strict=True))  # type: ignore[arg-type]
    return red, green, blue


def _fit(layout: str, sizes: Sequence[Size], scale: float) -> list[Size]:
    """Shrink photos to a common height, width, or square cell; a side never falls below one pixel."""
    lengths = [{"horizontal": size[1], "vertical": size[0]}.get(layout, max(size)) for size in sizes]
    factors = [min(lengths) / length for length in lengths]
    return [
        (max(1, round(width * factor * scale)), max(1, round(height * factor * scale)))
        for (width, height), factor in zip(sizes, factors, strict=True)
    ]


def _row(sizes: list[Size], gap: int, rng: random.Random) -> tuple[Size, list[Cell]]:
    height, x, cells = max(size[1] for size in sizes), 0, []
    for width, own in sizes:
        cells.append(Cell(x, (height - own) // 2, width, own))
        x += width + gap
    return (x - gap, height), cells


def _column(sizes: list[Size], gap: int, rng: random.Random) -> tuple[Size, list[Cell]]:
    """Place photos below each other: a row with x and y swapped."""
    (height, width), cells = _row([(high, wide) for wide, high in sizes], gap, rng)
    return (width, height), [Cell(cell.y, cell.x, cell.height, cell.width) for cell in cells]


def _grid(sizes: list[Size], gap: int, rng: random.Random) -> tuple[Size, list[Cell]]:
    """Place each photo in the middle of one of several equal cells."""
    columns = min(MAX_COLUMNS, math.ceil(math.sqrt(len(sizes))))
    rows = math.ceil(len(sizes) / columns)
    wide, high = max(size[0] for size in sizes), max(size[1] for size in sizes)
    cells = []
    for index, (width, height) in enumerate(sizes):
        row, column = divmod(index, columns)
        x, y = column * (wide + gap), row * (high + gap)
        cells.append(Cell(x + (wide - width) // 2, y + (high - height) // 2, width, height))
    return (columns * (wide + gap) - gap, rows * (high + gap) - gap), cells


def _free(sizes: list[Size], gap: int, rng: random.Random) -> tuple[Size, list[Cell]]:
    """Place rows of one or two photos, shifted at random on a larger canvas."""
    lengths = {2: ((2,), (1, 1)), 3: ((2, 1), (1, 2)), 4: ((2, 2),)}[len(sizes)]
    left, rows = list(range(len(sizes))), []
    for length in rng.choice(lengths):
        rows.append([left.pop(0) for _ in range(length)])
    wide, high = max(size[0] for size in sizes), max(size[1] for size in sizes)
    slack = 1.0 if len(set(sizes)) == 1 and wide == high else SLACK  # square tiles of one size: exactly two by two
    canvas = (math.ceil((2 * wide + gap) * slack), math.ceil((2 * high + gap) * slack))
    cells: dict[int, Cell] = {}
    heights = [max(sizes[index][1] for index in row) for row in rows]
    tops = _shift(heights, gap, canvas[1], rng)
    for row, top, height in zip(rows, tops, heights, strict=True):
        for index, x in zip(row, _shift([sizes[index][0] for index in row], gap, canvas[0], rng), strict=True):
            y = top + rng.randint(0, height - sizes[index][1])
            cells[index] = Cell(x, y, *sizes[index])
    return canvas, [cells[index] for index in range(len(sizes))]


def _shift(lengths: list[int], gap: int, total: int, rng: random.Random) -> list[int]:
    """Place lengths one after the other on a line of `total`, divide the free space at random, return the starts."""
    free = total - sum(lengths) - gap * (len(lengths) - 1)
    cuts = sorted(rng.randint(0, free) for _ in lengths)
    starts, at = [], 0
    for length, cut in zip(lengths, cuts, strict=True):
        starts.append(at + cut)
        at += length + gap
    return starts
