"""Boxes drawn on images, each with a label; told apart by colour and by line, for eyes that see few colours."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from mllm.boxes import Box, Frame

IMAGE_SIDE = 448
GOLD_COLOUR = "#009e73"
ANSWER_COLOUR = "#d55e00"
CANDIDATE_COLOUR = "#0072b2"
# Okabe & Ito (2008): all are told apart with any colour vision, and stand out on light and dark images.


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """One box to draw. `dashed` is for what a model said, solid for what is true."""

    box: Box
    label: str
    colour: str = ANSWER_COLOUR
    dashed: bool = False


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """Return the image with its longer side at least `side` pixels, so that labels can be read; never smaller."""
    scale = side / max(image.size)
    if scale <= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def draw(image: Image.Image, marks: Sequence[DrawnBox], *, side: int = 640) -> Image.Image:
    """Return a copy of the image with the boxes drawn, enlarged to `side` pixels if it was smaller."""
    picture = enlarge(image.convert("RGB"), side).copy()
    pen, stroke = ImageDraw.Draw(picture), max(2, max(picture.size) // 220)
    font = ImageFont.load_default(size=max(13, max(picture.size) // 36))
    for mark in marks:
        x1, y1, x2, y2 = mark.box.to_xyxy(Frame(*picture.size))
        corners = (x1, y1, max(x2 - 1, x1), max(y2 - 1, y1))
        pen.rectangle(corners, outline="white", width=stroke + 2)
        if mark.dashed:
            _dashed(pen, corners, mark.colour, stroke)
        else:
            pen.rectangle(corners, outline=mark.colour, width=stroke)
        _label(pen, picture.size, (x1, y1), mark, font)
    return picture


def data_uri(image: Image.Image, side: int = IMAGE_SIDE) -> str:
    """Return an image as a data URI: at most `side` pixels, PNG or JPEG, whichever is smaller."""
    picture = image.copy()
    picture.thumbnail((side, side))
    best: tuple[str, bytes] | None = None
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
        data = io.BytesIO()
        picture.save(data, kind, **options)
        if best is None or len(data.getvalue()) < len(best[1]):
            best = kind, data.getvalue()
    assert best is not None
    return f"data:image/{best[0]};base64,{base64.b64encode(best[1]).decode()}"


def _dashed(pen: ImageDraw.ImageDraw, corners: Sequence[float], colour: str, stroke: int) -> None:
    """Draw a rectangle of dashes."""
    x1, y1, x2, y2 = corners
    for (ax, ay), (bx, by) in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        length = max(abs(bx - ax), abs(by - ay), 1e-9)
        dash = 5 * stroke
        for start in range(0, int(length) + 1, 2 * dash):
            a, b = start / length, min(start + dash, length) / length
            pen.line((ax + a * (bx - ax), ay + a * (by - ay), ax + b * (bx - ax), ay + b * (by - ay)), colour, stroke)


def _label(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    mark: DrawnBox,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Write the label above the box, or inside where there is no room above, on a plate that stays in the image."""
    left, top, right, bottom = pen.textbbox((0, 0), mark.label, font=font)
    width, height = right - left + 8, bottom - top + 6
    x = min(max(corner[0], 0), max(size[0] - width, 0))
    y = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width, y + height), fill=mark.colour)
    pen.text((x + 4 - left, y + 3 - top), mark.label, fill="white", font=font)
