"""Images of the pocket world: labelled photos of one thing, and scenes of several, all deterministic by seed.

Everything about an image is known: which species is where and which marks are visible. Does not import torch.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw

from mllm.boxes import Box, Frame
from mllm.pocket.drawing import Colour, sprite
from mllm.pocket.species import Marks, Species

TILE = 96
"""Side of a labelled photo in pixels."""
THING_SIDE = (48, 68)
"""Range of the longer side of a thing, in pixels."""
WIDE = (9, 6)
"""Columns and rows of a wide scene. Shrunk to what the model reads (288x192 pixels), its things measure 16 to 23."""

_GROUND: dict[str, tuple[Colour, Colour]] = {
    "aircraft": ((176, 203, 226), (214, 226, 236)),
    "car": ((186, 186, 184), (160, 160, 160)),
    "reptilia": ((226, 208, 176), (206, 188, 154)),
    "bird": ((198, 216, 222), (190, 206, 178)),
    "food": ((214, 196, 176), (196, 176, 156)),
    "dog": ((190, 206, 172), (172, 192, 154)),
    "mollusca": ((172, 204, 206), (214, 204, 178)),
    "mammal": ((204, 206, 178), (182, 176, 150)),
    "flower": ((196, 212, 184), (176, 194, 166)),
    "landmark": ((206, 216, 226), (196, 190, 176)),
}


@dataclass(frozen=True, slots=True)
class WorldThing:
    """One thing in a scene: its look, its box, and its species name if it has one."""

    domain: str
    look: Marks
    box: Box
    name: str | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """The visible marks as words."""
        return self.look.phrases(self.domain)


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and the things in it, ordered left to right by box centre."""

    domain: str
    image: Image.Image
    things: tuple[WorldThing, ...]

    @property
    def marks(self) -> tuple[tuple[str, ...], ...]:
        """The visible marks of the things, left to right."""
        return tuple(thing.marks for thing in self.things)


@lru_cache(maxsize=64)
def _ground(domain: str, size: tuple[int, int]) -> Image.Image:
    top, bottom = _GROUND[domain]
    column = Image.new("RGB", (1, 2))
    column.putdata((top, bottom))
    return column.resize(size, Image.Resampling.BILINEAR)


def background(domain: str, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Draw a soft background with muted clutter: enough to distract, never as saturated as a thing."""
    image = _ground(domain, size).copy()
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(2, 3 + size[0] * size[1] // 3000)):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        reach, tone = rng.randint(2, 8), rng.choice((-26, -16, 14, 24))
        here = image.getpixel((x, y))
        fill = tuple(max(0, min(255, channel + tone)) for channel in here)  # type: ignore[union-attr]
        kind = rng.randrange(3)
        if kind == 0:
            draw.ellipse((x - reach, y - reach // 2, x + reach, y + reach // 2), fill=fill)
        elif kind == 1:
            draw.line((x, y, x + rng.randint(-9, 9), y - reach), fill=fill, width=2)
        else:
            draw.polygon([(x, y), (x + reach, y + reach // 2), (x - reach // 2, y + reach)], fill=fill)
    return image


def _place(
    canvas: Image.Image, domain: str, look: Marks, corner: tuple[int, int], cell: int, rng: random.Random
) -> Box:
    """Draw one thing somewhere inside a square cell of the canvas; return its box on the canvas."""
    drawn = sprite(domain, look, rng.randint(*THING_SIDE), rng)
    x = corner[0] + rng.randint(2, max(2, cell - drawn.width - 2))
    y = corner[1] + rng.randint(2, max(2, cell - drawn.height - 2))
    canvas.paste(drawn, (x, y), drawn)
    return Box.from_xyxy((x, y, x + drawn.width, y + drawn.height), Frame(*canvas.size))


def photo(one: Species, seed: int) -> tuple[Image.Image, Box]:
    """Draw a labelled photo: one thing of a species on a background, ``TILE`` pixels square; return it with its box."""
    return draw_photo(one.domain, one.look, random.Random(f"photo/{one.name}/{seed}"))


def draw_photo(domain: str, look: Marks, rng: random.Random) -> tuple[Image.Image, Box]:
    """Draw one thing of any look on a background, ``TILE`` pixels square; return it with its box."""
    canvas = background(domain, (TILE, TILE), rng)
    return canvas, _place(canvas, domain, look, (0, 0), TILE, rng)


def departure(image: Image.Image, domain: str) -> Box | None:
    """Return the box of a photo's one thing, found as what differs from the background by more than clutter does. None
    if there is only background. Works on photos with one background, not on collages."""
    channels = ImageChops.difference(image.convert("RGB"), _ground(domain, image.size)).split()
    strongest = ImageChops.lighter(ImageChops.lighter(channels[0], channels[1]), channels[2])
    found = strongest.point([255 * (level > 64) for level in range(256)]).getbbox()
    return None if found is None else Box.from_xyxy(found, Frame(*image.size))


def make_scene(seed: int | str, domain: str, looks: Sequence[Marks | Species], layout: str = "any") -> Scene:
    """Draw a scene of the given looks in tiles of 96 pixels.

    ``layout``: ``row``, ``column``, ``grid`` (at most three columns), ``free`` (2x2 tiles, at most four things),
    ``any`` of these, or ``wide`` (see ``WIDE``). Half of the scenes are collages (each tile on its own background),
    like composites of photos; wide ones are not.
    """
    rng = random.Random(f"scene/{seed}")
    columns, rows = _tiles(len(looks), layout, rng)
    size = (columns * TILE, rows * TILE)
    cells = [(column * TILE, row * TILE) for row in range(rows) for column in range(columns)]
    canvas = background(domain, size, rng)
    if layout != "wide" and rng.random() < 0.5:
        for cell in cells:
            canvas.paste(background(domain, (TILE, TILE), rng), cell)
    things = []
    for look, cell in zip(looks, rng.sample(cells, len(looks)), strict=True):
        marks, name = (look.look, look.name) if isinstance(look, Species) else (look, None)
        things.append(WorldThing(domain, marks, _place(canvas, domain, marks, cell, TILE, rng), name))
    return Scene(domain, canvas, tuple(sorted(things, key=lambda thing: thing.box.center[0])))


def crop(image: Image.Image, box: Box, margin: float = 1.5) -> Image.Image:
    """Cut out a square around a box, ``margin`` times the longer side, and scale it to ``TILE`` pixels.

    A square that would leave the image is moved inside, and shrunk if the image is too small for it.
    """
    x1, y1, x2, y2 = box.to_xyxy(Frame(*image.size))
    side = min(margin * max(x2 - x1, y2 - y1), *image.size)
    left = min(max(0.0, (x1 + x2 - side) / 2), image.width - side)
    top = min(max(0.0, (y1 + y2 - side) / 2), image.height - side)
    square = (left, top, left + side, top + side)
    return image.resize((TILE, TILE), Image.Resampling.BICUBIC, box=square)


def _tiles(count: int, layout: str, rng: random.Random) -> tuple[int, int]:
    if layout == "wide":
        return WIDE
    if layout == "any":
        layouts = "row free", "row column free", "row column grid free", "grid free", "grid"
        layout = rng.choice(layouts[min(count, 5) - 1].split())
    if layout == "row":
        return count, 1
    return (1, count) if layout == "column" else (2 if count <= 4 else 3, 2)
