"""Draws the things of the pocket world as sprites: an outline, a pattern, an accent part and details of the domain.

Sprites are drawn large and scaled down, so that edges are smooth. A sprite is cropped to its painted pixels: the crop
is exactly its box.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageChops, ImageDraw

from mllm.pocket.species import Marks

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
        return _rounded_rectangle(half_w, half_h, 18)
    if form == "pointed":
        return [(_CENTRE, _CENTRE - half_h), (_CENTRE + half_w, _CENTRE + half_h), (_CENTRE - half_w, _CENTRE + half_h)]
    points = []
    for step in range(180):
        angle = step * math.pi / 90
        reach = 1.0 - 0.13 * (1 + math.cos(8 * angle)) if form == "scalloped" else 1.0
        stretch = 1.12 if form == "scalloped" else 1.0
        points.append(
            (_CENTRE + stretch * reach * half_w * math.cos(angle), _CENTRE + stretch * reach * half_h * math.sin(angle))
        )
    return points


def _rounded_rectangle(half_w: int, half_h: int, radius: int) -> list[tuple[float, float]]:
    points = []
    corners = ((1, 1, 0), (-1, 1, 90), (-1, -1, 180), (1, -1, 270))
    for sign_x, sign_y, start in corners:
        for degree in range(start, start + 91, 15):
            angle = math.radians(degree)
            x = _CENTRE + sign_x * (half_w - radius) + radius * math.cos(angle)
            points.append((x, _CENTRE + sign_y * (half_h - radius) + radius * math.sin(angle)))
    return points


def _ink(colour: str) -> Colour:
    """Return the colour of a pattern that is visible on its body: dark on light bodies, light on dark ones."""
    return (58, 40, 40) if colour in ("white", "yellow", "orange") else (250, 244, 225)


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
    image.paste(_ink(marks.colour), mask=ImageChops.multiply(ink, mask))


def _polygon(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], fill: Colour) -> None:
    draw.polygon(points, fill=fill)
    draw.line([*points, points[0]], fill=OUTLINE, width=7, joint="curve")


def _ellipse(draw: ImageDraw.ImageDraw, x: float, y: float, half_w: float, half_h: float, fill: Colour) -> None:
    draw.ellipse((x - half_w, y - half_h, x + half_w, y + half_h), fill=fill, outline=OUTLINE, width=7)


def _eye(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    draw.ellipse((x - 11, y - 11, x + 11, y + 11), fill=(255, 255, 255), outline=OUTLINE, width=4)
    draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=OUTLINE)


# Parts behind the body, then parts in front: each takes (draw, accent colour, half width, half height of the body).


def _aircraft_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    for side in (-1, 1):
        x = _CENTRE + side * w * 0.55
        _polygon(
            draw,
            [(x, _CENTRE - 28), (x + side * 88, _CENTRE + 34), (x + side * 88, _CENTRE + 66), (x, _CENTRE + 34)],
            accent,
        )


def _aircraft_front(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    _ellipse(draw, _CENTRE, _CENTRE - h * 0.5, 20, 14, (190, 225, 245))


def _car_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    top = _CENTRE - h
    _polygon(
        draw,
        [(_CENTRE - 62, top + 46), (_CENTRE - 44, top - 44), (_CENTRE + 44, top - 44), (_CENTRE + 62, top + 46)],
        accent,
    )


def _car_front(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    for side in (-1, 1):
        _ellipse(draw, _CENTRE + side * w * 0.55, _CENTRE + h - 4, 25, 25, (70, 70, 76))
        draw.ellipse(
            (_CENTRE + side * w * 0.55 - 9, _CENTRE + h - 13, _CENTRE + side * w * 0.55 + 9, _CENTRE + h + 5),
            fill=(200, 200, 205),
        )


def _reptile_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    top = _CENTRE - h
    for x in (-48, 0, 48):
        _polygon(draw, [(_CENTRE + x - 32, top + 44), (_CENTRE + x, top - 44), (_CENTRE + x + 32, top + 44)], accent)
    for side in (-1, 1):
        _ellipse(draw, _CENTRE + side * w * 0.6, _CENTRE + h, 20, 15, (120, 110, 90))


def _animal_eyes(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    for side in (-1, 1):
        _eye(draw, _CENTRE + side * 24, _CENTRE - h * 0.32 + 4)


def _bird_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    draw.line((_CENTRE - 18, _CENTRE + h - 10, _CENTRE - 18, _CENTRE + h + 28), fill=(110, 80, 50), width=9)
    draw.line((_CENTRE + 18, _CENTRE + h - 10, _CENTRE + 18, _CENTRE + h + 28), fill=(110, 80, 50), width=9)


def _bird_front(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    top = _CENTRE - h
    draw.pieslice((_CENTRE - 56, top - 38, _CENTRE + 56, top + 62), 180, 360, fill=accent, outline=OUTLINE, width=7)
    _eye(draw, _CENTRE - 16, top + 36)
    _polygon(
        draw,
        [(_CENTRE - w * 0.55, top + 42), (_CENTRE - w * 0.55 - 44, top + 58), (_CENTRE - w * 0.55, top + 72)],
        (200, 170, 110),
    )


def _food_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    _ellipse(draw, _CENTRE, _CENTRE + h - 6, w + 30, 26, (205, 210, 216))


def _food_front(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    top = _CENTRE - h
    _ellipse(draw, _CENTRE, top + 8, 60, 34, accent)
    _ellipse(draw, _CENTRE, top - 18, 34, 24, accent)


def _dog_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    for side in (-1, 1):
        _ellipse(draw, _CENTRE + side * (w * 0.5 + 22), _CENTRE - h * 0.62, 30, 56, accent)


def _dog_front(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    _animal_eyes(draw, accent, w, h)
    _ellipse(draw, _CENTRE, _CENTRE + h * 0.12, 15, 11, (60, 45, 45))


def _mollusc_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    base = _CENTRE + h
    _polygon(
        draw,
        [
            (_CENTRE - w - 44, base + 26),
            (_CENTRE - w - 20, base - 34),
            (_CENTRE + w, base - 34),
            (_CENTRE + w + 34, base + 26),
        ],
        accent,
    )
    for x in (-w - 34, -w - 12):
        draw.line((_CENTRE + x, base - 26, _CENTRE + x - 8, base - 74), fill=(110, 90, 80), width=8)


def _mammal_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    x, y = _CENTRE + w * 0.62, _CENTRE + h * 0.35
    _ellipse(draw, x + 48, y - 26, 34, 62, accent)
    for side in (-1, 1):
        _ellipse(draw, _CENTRE + side * w * 0.45, _CENTRE - h * 0.86, 22, 24, (150, 135, 120))


def _flower_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    draw.line((_CENTRE, _CENTRE + h, _CENTRE, _CENTRE + h + 66), fill=(70, 120, 70), width=13)
    for step in range(8):
        angle = step * math.pi / 4
        _ellipse(draw, _CENTRE + (w + 4) * math.cos(angle), _CENTRE + (h + 4) * math.sin(angle), 33, 33, accent)


def _landmark_back(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    top = _CENTRE - h
    draw.line((_CENTRE, top - 66, _CENTRE, top), fill=(90, 85, 80), width=9)
    draw.pieslice((_CENTRE - 58, top - 46, _CENTRE + 58, top + 84), 180, 360, fill=accent, outline=OUTLINE, width=7)
    draw.rectangle(
        (_CENTRE - w - 18, _CENTRE + h - 4, _CENTRE + w + 18, _CENTRE + h + 20),
        fill=(160, 155, 150),
        outline=OUTLINE,
        width=6,
    )


def _landmark_front(draw: ImageDraw.ImageDraw, accent: Colour, w: int, h: int) -> None:
    draw.pieslice((_CENTRE - 20, _CENTRE + h - 58, _CENTRE + 20, _CENTRE + h + 40), 180, 360, fill=(70, 60, 60))


_Part = Callable[[ImageDraw.ImageDraw, Colour, int, int], None]
_NOTHING: _Part = lambda draw, accent, w, h: None  # noqa: E731
_PARTS: dict[str, tuple[_Part, _Part]] = {
    "aircraft": (_aircraft_back, _aircraft_front),
    "car": (_car_back, _car_front),
    "reptilia": (_reptile_back, _animal_eyes),
    "bird": (_bird_back, _bird_front),
    "food": (_food_back, _food_front),
    "dog": (_dog_back, _dog_front),
    "mollusca": (_mollusc_back, _NOTHING),
    "mammal": (_mammal_back, _animal_eyes),
    "flower": (_flower_back, _NOTHING),
    "landmark": (_landmark_back, _landmark_front),
}


def sprite(domain: str, marks: Marks, longest: int, rng: random.Random) -> Image.Image:
    """Draw one thing as an RGBA image whose longer side is ``longest`` pixels, cropped to the painted pixels."""
    image = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    half_w, half_h = BODY_HALF[marks.form]
    accent = _shaded(PAINT[marks.accent], rng)
    back, front = _PARTS[domain]
    back(draw, accent, half_w, half_h)
    points = _body_points(marks.form)
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    image.paste(_shaded(PAINT[marks.colour], rng), mask=mask)
    _pattern(image, mask, marks)
    draw.line([*points, points[0]], fill=OUTLINE, width=8, joint="curve")
    front(draw, accent, half_w, half_h)
    if domain != "landmark" and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.crop(image.getbbox())
    ratio = longest / max(image.size)
    return image.resize((max(8, round(image.width * ratio)), max(8, round(image.height * ratio))), Image.Resampling.BOX)


def _shaded(colour: Colour, rng: random.Random) -> Colour:
    """Return the colour in slightly different light."""
    light = rng.uniform(0.93, 1.05)
    return tuple(min(255, max(0, round(channel * light + rng.uniform(-5, 5)))) for channel in colour)  # type: ignore[return-value]
