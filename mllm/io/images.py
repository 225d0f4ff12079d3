"""Images from files: opened in one place, so that orientation is applied once and every image is 8-bit RGB.

Camera and web collections hold rotated JPEGs, CMYK scans, 16-bit and transparent PNGs, cut-off downloads and HTML pages
called .jpg. All of these either become a plain RGB image here or raise `ImageError` with the file's name.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from mllm.boxes import Frame
from mllm.errors import ImageError
from mllm.io.files import is_file

JPEG_QUALITY = 92

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels (300 MB as RGB). A small file can claim to be far larger."""

_ORIENTATION_TAG = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on broken data, found in their sources; anything else is a fault of ours and passes.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, struct.error, zlib.error)


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image as people see it: 8-bit RGB, EXIF orientation applied, transparency on white.

    The result carries no metadata, so nobody can apply the orientation again.

    Raises:
        ImageError: missing, not an image, cut off, too large. Names the file.
    """
    with _opened(Path(path), str(path), max_pixels) as image:
        return _as_seen(image)


def image_from_bytes(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image that lies in memory (a parquet cell), as `open_image` does; `name` stands in messages."""
    with _opened(BytesIO(data), name, max_pixels) as image:
        return _as_seen(image)


def image_format(data: bytes, name: str) -> str:
    """Return Pillow's name of the format of an image in memory ("JPEG"), from its header. Raises as `open_image`."""
    with _opened(BytesIO(data), name) as image:
        return image.format or ""


def image_size(path: str | Path) -> Frame:
    """Return width and height in pixels after EXIF orientation. Reads the header only: a cut-off file has a size."""
    with _opened(Path(path), str(path)) as image:
        return Frame(*image.size).oriented(_left_to_do(image))


def exif_orientation(path: str | Path) -> int:
    """Return the EXIF orientation 1..8 of a file, 1 where it has none. For boxes drawn on the image as stored."""
    with _opened(Path(path), str(path)) as image:
        return _orientation(image)


def check_image_size(path: str | Path, said: Frame) -> None:
    """Raise `ImageError` when the image is not of the size that a record says: its boxes would be off."""
    found = image_size(path)
    if found == said:
        return
    turned = " (the record was written before EXIF orientation)" if found == Frame(said.height, said.width) else ""
    raise ImageError(
        f"{path}: the image is {found.width:g} x {found.height:g}, its record says {said.width:g} x "
        f"{said.height:g}{turned}"
    )


def phash(image: Image.Image) -> str:
    """Return the perceptual hash of an image: 64 bits as 16 hexadecimal digits, close for look-alike files."""
    import imagehash

    return str(imagehash.phash(image))


@contextmanager
def _opened(source: Path | IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image lazily, turning every way in which a file can be bad into `ImageError`."""
    if isinstance(source, Path) and not is_file(source):
        raise ImageError(f"{name:.300}: no such image file")
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels; the limit here is ours and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(f"{name}: {image.width} x {image.height} pixels; the limit is {max_pixels}")
                yield image
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: claims more pixels than the limit of {MAX_PIXELS}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image (its beginning is that of no known format)") from None
    except _BROKEN as error:
        raise ImageError(f"{name}: cannot be read as an image, perhaps cut off: {error}") from error


def _as_seen(image: Image.Image) -> Image.Image:
    """Decode, orient and convert to RGB, without metadata."""
    turn = _TURN.get(_left_to_do(image))
    image.load()
    plain = _rgb(image)
    if turn is not None:
        plain = plain.transpose(turn)
    elif plain is image:
        plain = image.copy()  # the opened one is closed on the way out
    plain.info = {}
    return plain


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image; values outside 1..8, which do occur, mean 1.

    Pillow's method for PNG would decode the whole image to find an orientation written after the pixels. We do not
    look there (nor does the rule in `open_image`), since a size has to come from the header alone.
    """
    value = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    return value if value in _TURN else 1


def _left_to_do(image: Image.Image) -> int:
    """Return the orientation that is still to be applied: Pillow itself turns TIFF, its `size` included."""
    return 1 if image.format == "TIFF" else _orientation(image)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bit(image).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale a grey image of 16 or 32 bits or of floats to 8 bits (Pillow itself would clip it to white).

    16-bit files fill 0..65535; wider ones are taken by their largest value: up to 1, up to 255, up to 65535.
    """
    import numpy as np

    grey = np.asarray(image).astype(np.float64)
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 65535):  # also when there is a NaN
        raise ValueError(f"grey values from {low:g} to {high:g}; scale it to 8 bits first")
    if image.mode.startswith("I;16") or high > 255:
        grey /= 257
    elif image.mode == "F" and high <= 1:
        grey *= 255
    return Image.fromarray(np.round(grey).astype(np.uint8))


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG or JPEG, by the path's ending, whole or not at all: under another name first."""
    part = path.with_name(f".{path.name}.part")
    if path.suffix == ".png":
        image.save(part, format="PNG")
    else:
        image.save(part, format="JPEG", quality=JPEG_QUALITY)
    part.replace(path)
