"""Draw labelled boxes on images. Boxes differ in colour and in line style, for readers with colour blindness."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from mllm.boxes import Box, Frame

GOLD_COLOUR = "#009e73"
ANSWER_COLOUR = "#d55e00"
CANDIDATE_COLOUR = "#0072b2"
# From Okabe & Ito (2008): distinguishable with any colour vision, visible on light and dark images.


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """One box to draw: solid for ground truth, `dashed` for the answer of a model."""

    box: Box
    label: str
    colour: str = ANSWER_COLOUR
    dashed: bool = False


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """Return the image with a longer side of at least `side` pixels, so that labels are legible."""
    scale = side / max(image.size)
    if scale <= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def draw(image: Image.Image, boxes: Sequence[DrawnBox], *, side: int = 640) -> Image.Image:
    """Return a copy of the image with the boxes drawn, enlarged to `side` pixels if it is smaller."""
    canvas = enlarge(image.convert("RGB"), side).copy()
    pen, stroke = ImageDraw.Draw(canvas), max(2, max(canvas.size) // 220)
    font = ImageFont.load_default(size=max(13, max(canvas.size) // 36))
    for drawn in boxes:
        x1, y1, x2, y2 = drawn.box.to_xyxy(Frame(*canvas.size))
        corners = (x1, y1, max(x2 - 1, x1), max(y2 - 1, y1))
        pen.rectangle(corners, outline="white", width=stroke + 2)
        if drawn.dashed:
            _dashed(pen, corners, drawn.colour, stroke)
        else:
            pen.rectangle(corners, outline=drawn.colour, width=stroke)
        # The label is on a plate above the box, or inside the box where the plate would leave the image.
        left, top, right, bottom = pen.textbbox((0, 0), drawn.label, font=font)
        width, height = right - left + 8, bottom - top + 6
        x, y = min(max(x1, 0), max(canvas.width - width, 0)), y1 - height if y1 >= height else y1
        pen.rectangle((x, y, x + width, y + height), fill=drawn.colour)
        pen.text((x + 4 - left, y + 3 - top), drawn.label, fill="white", font=font)
    return canvas


def data_uri(image: Image.Image, side: int = 448) -> str:
    """Return an image as a data URI: at most `side` pixels, PNG or JPEG, whichever is smaller."""
    small = image.copy()
    small.thumbnail((side, side))
    encoded: list[tuple[str, bytes]] = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
        data = io.BytesIO()
        small.save(data, kind, **options)
        encoded.append((kind, data.getvalue()))
    kind, content = min(encoded, key=lambda one: len(one[1]))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _dashed(pen: ImageDraw.ImageDraw, corners: Sequence[float], colour: str, stroke: int) -> None:
    x1, y1, x2, y2 = corners
    for (ax, ay), (bx, by) in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        length = max(abs(bx - ax), abs(by - ay), 1e-9)
        dash = 5 * stroke
        for start in range(0, int(length) + 1, 2 * dash):
            a, b = start / length, min(start + dash, length) / length
            pen.line((ax + a * (bx - ax), ay + a * (by - ay), ax + b * (bx - ax), ay + b * (by - ay)), colour, stroke)
