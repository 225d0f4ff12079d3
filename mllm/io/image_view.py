"""An image or a crop of it within a pixel budget, as it is sent to a model. Opened only when it is sent."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mllm.boxes import Box, Frame
from mllm.errors import ImageError
from mllm.io.images import JPEG_QUALITY, image_size, open_image
from mllm.io.provenance import file_hash

if TYPE_CHECKING:
    from PIL.Image import Image

LOSSLESS = 512 * 512
"""PNG files of at most this number of pixels are sent as PNG; everything else as JPEG."""


def data_url(image: Image, *, lossless: bool) -> str:
    """Return an image as `data:image/...;base64,...`: PNG if `lossless`, otherwise JPEG."""
    kind, file = "png" if lossless else "jpeg", BytesIO()
    image.save(file, format=kind, quality=JPEG_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image file, or its crop to `box` (unit frame), shrunk to at most `max_pixels` pixels."""

    image: Path
    max_pixels: int
    box: Box | None = None

    @property
    def window(self) -> Box:
        """The crop in the unit frame of the whole image, after rounding outwards to whole pixels."""
        size = image_size(self.image)
        return Box.from_xyxy(self._crop(size), size)

    @property
    def size(self) -> Frame:
        """Width and height of the view in pixels. Reads only the header of the file."""
        left, top, right, bottom = self._crop(image_size(self.image))
        width, height = right - left, bottom - top
        if width * height <= self.max_pixels:
            return Frame(width, height)
        scale = math.sqrt(self.max_pixels / (width * height))
        return Frame(max(int(width * scale), 1), max(int(height * scale), 1))

    def open(self) -> Image:
        """Return the view as RGB: cropped and shrunk, never enlarged."""
        from PIL.Image import Resampling

        whole = open_image(self.image)
        part = whole.crop(self._crop(Frame(*whole.size)))
        goal = (int(self.size.width), int(self.size.height))
        return part if part.size == goal else part.resize(goal, Resampling.LANCZOS)

    def data_url(self) -> str:
        """Return the view as `data:image/...;base64,...`."""
        view = self.open()
        return data_url(view, lossless=self.image.suffix.lower() == ".png" and view.width * view.height <= LOSSLESS)

    def identity(self) -> dict[str, object]:
        """Return JSON values that identify the view: the hash of the file's bytes, the crop, the budget."""
        try:
            content = file_hash(self.image)
        except OSError as error:
            raise ImageError(f"{self.image}: the image cannot be read: {error}") from None
        box = None if self.box is None else [self.box.x1, self.box.y1, self.box.x2, self.box.y2]
        return {"sha256": content, "box": box, "max_pixels": self.max_pixels}

    def _crop(self, size: Frame) -> tuple[int, int, int, int]:
        """Return the crop of an image of `size` in whole pixels, at least one pixel wide and high."""
        if self.box is None:
            return 0, 0, int(size.width), int(size.height)
        x1, y1, x2, y2 = self.box.to_xyxy(size)
        left, top = math.floor(x1), math.floor(y1)
        right, bottom = min(math.ceil(x2), int(size.width)), min(math.ceil(y2), int(size.height))
        return left, top, max(right, left + 1), max(bottom, top + 1)
