"""Draws the things of the pocket world as sprites: an outline, a pattern, an accent part and details of the domain.

Sprites are drawn large and scaled down, so that edges are smooth. A sprite is cropped to its painted pixels: the crop
is exactly its box.
"""

import math
import random
from collections.abc import Callable, Iterator

from PIL import Image, ImageChops, ImageDraw

from mllm.pocket.species import DOMAINS, Marks

Colour = tuple[int, int, int]

PAINT: dict[str, Colour] = {
    "red": (214, 45, 48),
    "orange": (245, 140, 30),
    "yellow": (250, 218, 62),
    "green": (52, 160, 75),
    "blue": (45, 98, 220),
    "purple": (146, 72, 190),
    "white": (248, 248, 246),
    "black": (42, 42, 48),
}
OUTLINE: Colour = (28, 26, 30)
_CANVAS = 400
_CENTRE = _CANVAS // 2

BODY_HALF: dict[str, tuple[int, int]] = {
    "round": (84, 84),
    "wide": (112, 66),
    "tall": (66, 108),
    "square": (80, 80),
    "pointed": (98, 92),
    "scalloped": (86, 86),
}
"""Half width and half height of a body on the 400-pixel canvas, by form."""


def _body_points(form: str) -> list[tuple[float, float]]:
    """Return the outline of a body as a polygon around the canvas centre."""
    half_w, half_h = BODY_HALF[form]
    if form == "square":
        corners, radius = ((1, 1, 0), (-1, 1, 90), (-1, -1, 180), (1, -1, 270)), 18
        return [
            (
                _CENTRE + sign_x * (half_w - radius) + radius * math.cos(angle),
                _CENTRE + sign_y * (half_h - radius) + radius * math.sin(angle),
            )
            for sign_x, sign_y, start in corners
            for angle in map(math.radians, range(start, start + 91, 15))
        ]
    if form == "pointed":
        return [(_CENTRE, _CENTRE - half_h), (_CENTRE + half_w, _CENTRE + half_h), (_CENTRE - half_w, _CENTRE + half_h)]
    points = []
    for step in range(180):
        angle = step * math.pi / 90
        reach = 1.12 * (1.0 - 0.13 * (1 + math.cos(8 * angle))) if form == "scalloped" else 1.0
        points.append((_CENTRE + reach * half_w * math.cos(angle), _CENTRE + reach * half_h * math.sin(angle)))
    return points


def _pattern(image: Image.Image, mask: Image.Image, marks: Marks) -> None:
    if marks.pattern == "plain":
        return
    ink = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(ink)
    if marks.pattern == "striped":
        for x in range(_CENTRE - 118, _CENTRE + 119, 37):
            draw.rectangle((x - 8, 0, x + 8, _CANVAS), fill=255)
    elif marks.pattern == "banded":
        draw.rectangle((0, _CENTRE - 2, _CANVAS, _CENTRE + 46), fill=255)
    else:
        for row, y in enumerate(range(_CENTRE - 110, _CENTRE + 111, 38)):
            for x in range(_CENTRE - 114 + 22 * (row % 2), _CENTRE + 130, 44):
                draw.ellipse((x - 11, y - 11, x + 11, y + 11), fill=255)
    dark = marks.colour in ("white", "yellow", "orange")  # visible on the body: dark on light ones, light on dark ones
    image.paste((58, 40, 40) if dark else (250, 244, 225), mask=ImageChops.multiply(ink, mask))


class _Pen:
    """Draws outlined shapes; all coordinates are relative to the canvas centre."""

    def __init__(self, image: Image.Image) -> None:
        self.draw = ImageDraw.Draw(image)

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        points = [(_CENTRE + x, _CENTRE + y) for x, y in points]
        self.draw.polygon(points, fill=fill)
        self.draw.line([*points, points[0]], fill=OUTLINE, width=7, joint="curve")

    def ellipse(self, x: float, y: float, half_w: float, half_h: float, fill: Colour, outline: int = 7) -> None:
        x, y = _CENTRE + x, _CENTRE + y
        self.draw.ellipse((x - half_w, y - half_h, x + half_w, y + half_h), fill, OUTLINE if outline else None, outline)

    def line(self, x1: float, y1: float, x2: float, y2: float, fill: Colour, width: int) -> None:
        self.draw.line((_CENTRE + x1, _CENTRE + y1, _CENTRE + x2, _CENTRE + y2), fill=fill, width=width)

    def dome(self, half_w: int, top: int, bottom: int, fill: Colour, outline: int = 7) -> None:
        box = (_CENTRE - half_w, _CENTRE + top, _CENTRE + half_w, _CENTRE + bottom)
        self.draw.pieslice(box, 180, 360, fill, OUTLINE if outline else None, outline)

    def eye(self, x: float, y: float) -> None:
        self.ellipse(x, y, 11, 11, (255, 255, 255), 4)
        self.ellipse(x, y, 5, 5, OUTLINE, 0)


# Each draws the parts behind the body, yields, and draws those in front; w, h: half width and height of the body.


def _aircraft(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    for side in (-1, 1):
        x = side * w * 0.55
        pen.polygon([(x, -28), (x + side * 88, 34), (x + side * 88, 66), (x, 34)], accent)
    yield
    pen.ellipse(0, -h * 0.5, 20, 14, (190, 225, 245))


def _car(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    pen.polygon([(-62, 46 - h), (-44, -h - 44), (44, -h - 44), (62, 46 - h)], accent)
    yield
    for side in (-1, 1):
        pen.ellipse(side * w * 0.55, h - 4, 25, 25, (70, 70, 76))
        pen.ellipse(side * w * 0.55, h - 4, 9, 9, (200, 200, 205), 0)


def _reptile(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    for x in (-48, 0, 48):
        pen.polygon([(x - 32, 44 - h), (x, -h - 44), (x + 32, 44 - h)], accent)
    for side in (-1, 1):
        pen.ellipse(side * w * 0.6, h, 20, 15, (120, 110, 90))
    yield
    _animal_eyes(pen, h)


def _animal_eyes(pen: _Pen, h: int) -> None:
    for side in (-1, 1):
        pen.eye(side * 24, 4 - h * 0.32)


def _bird(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    for x in (-18, 18):
        pen.line(x, h - 10, x, h + 28, (110, 80, 50), 9)
    yield
    pen.dome(56, -h - 38, 62 - h, accent)
    pen.eye(-16, 36 - h)
    pen.polygon([(-w * 0.55, 42 - h), (-w * 0.55 - 44, 58 - h), (-w * 0.55, 72 - h)], (200, 170, 110))


def _food(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    pen.ellipse(0, h - 6, w + 30, 26, (205, 210, 216))
    yield
    pen.ellipse(0, 8 - h, 60, 34, accent)
    pen.ellipse(0, -h - 18, 34, 24, accent)


def _dog(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    for side in (-1, 1):
        pen.ellipse(side * (w * 0.5 + 22), -h * 0.62, 30, 56, accent)
    yield
    _animal_eyes(pen, h)
    pen.ellipse(0, h * 0.12, 15, 11, (60, 45, 45))


def _mollusc(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    pen.polygon([(-w - 44, h + 26), (-w - 20, h - 34), (w, h - 34), (w + 34, h + 26)], accent)
    for x in (-w - 34, -w - 12):
        pen.line(x, h - 26, x - 8, h - 74, (110, 90, 80), 8)
    yield


def _mammal(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    pen.ellipse(w * 0.62 + 48, h * 0.35 - 26, 34, 62, accent)
    for side in (-1, 1):
        pen.ellipse(side * w * 0.45, -h * 0.86, 22, 24, (150, 135, 120))
    yield
    _animal_eyes(pen, h)


def _flower(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    pen.line(0, h, 0, h + 66, (70, 120, 70), 13)
    for angle in (step * math.pi / 4 for step in range(8)):
        pen.ellipse((w + 4) * math.cos(angle), (h + 4) * math.sin(angle), 33, 33, accent)
    yield


def _landmark(pen: _Pen, accent: Colour, w: int, h: int) -> Iterator[None]:
    pen.line(0, -h - 66, 0, -h, (90, 85, 80), 9)
    pen.dome(58, -h - 46, 84 - h, accent)
    floor = (_CENTRE - w - 18, _CENTRE + h - 4, _CENTRE + w + 18, _CENTRE + h + 20)
    pen.draw.rectangle(floor, fill=(160, 155, 150), outline=OUTLINE, width=6)
    yield
    pen.dome(20, h - 58, h + 40, (70, 60, 60), 0)


_IN_ORDER = (_aircraft, _car, _reptile, _bird, _food, _dog, _mollusc, _mammal, _flower, _landmark)
_PARTS: dict[str, Callable[..., Iterator[None]]] = dict(zip(DOMAINS, _IN_ORDER, strict=True))


def sprite(domain: str, marks: Marks, longest: int, rng: random.Random) -> Image.Image:
    """Draw one thing as an RGBA image whose longer side is ``longest`` pixels, cropped to the painted pixels."""
    image = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
    pen, accent = _Pen(image), _shaded(PAINT[marks.accent], rng)
    parts = _PARTS[domain](pen, accent, *BODY_HALF[marks.form])
    next(parts)
    points = _body_points(marks.form)
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    image.paste(_shaded(PAINT[marks.colour], rng), mask=mask)
    _pattern(image, mask, marks)
    pen.draw.line([*points, points[0]], fill=OUTLINE, width=8, joint="curve")
    next(parts, None)
    if domain != "landmark" and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.crop(image.getbbox())
    ratio = longest / max(image.size)
    return image.resize((max(8, round(image.width * ratio)), max(8, round(image.height * ratio))), Image.Resampling.BOX)


def _shaded(colour: Colour, rng: random.Random) -> Colour:
    light = rng.uniform(0.93, 1.05)
    return tuple(min(255, max(0, round(channel * light + rng.uniform(-5, 5)))) for channel in colour)  # type: ignore[return-value]
