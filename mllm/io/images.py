"""Open image files as 8-bit RGB with EXIF orientation applied. All code opens images through this module.

Only the formats in `FORMATS` are opened. Rotated JPEGs, CMYK, 16-bit and transparent files become plain RGB; broken
ones raise `ImageError` with the file's name.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

from mllm.boxes import Frame
from mllm.errors import ImageError
from mllm.io.files import is_file, write_bytes

JPEG_QUALITY = 92
MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels (300 MB as RGB). A small file can claim a far larger size."""
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
"""Formats that are opened, by Pillow's names: their header tells the size before anything is decoded. Others are not:
Pillow would start Ghostscript for EPS, and decode the whole image inside an icon before its size is known."""

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise for broken data, according to their sources. Other exceptions are bugs and pass through.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, struct.error, zlib.error)


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image as 8-bit RGB, with EXIF orientation applied and transparency on white.

    The result has no metadata, so the orientation cannot be applied twice. Raises ImageError: missing, not an image,
    truncated or too large. Names the file.
    """
    with _opened(Path(path), str(path), max_pixels) as image:
        return _oriented_rgb(image)


def image_from_bytes(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image in memory (a parquet cell) as `open_image` does; `name` is used in error messages."""
    with _opened(BytesIO(data), name, max_pixels) as image:
        return _oriented_rgb(image)


def image_format(data: bytes, name: str) -> str:
    """Return Pillow's name of the format of an image in memory ("JPEG"), from its header. Raises as `open_image`."""
    with _opened(BytesIO(data), name) as image:
        return image.format or ""


def image_size(path: str | Path) -> Frame:
    """Return width and height in pixels after EXIF orientation. Reads the header only, also of a truncated file."""
    with _opened(Path(path), str(path)) as image:
        return Frame(*image.size).oriented(_pending_orientation(image))


def size_from_bytes(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Frame:
    """Return the size of an image in memory as `image_size` does; `name` is used in error messages."""
    with _opened(BytesIO(data), name, max_pixels) as image:
        return Frame(*image.size).oriented(_pending_orientation(image))


def exif_orientation(path: str | Path) -> int:
    """Return the EXIF orientation of a file, 1..8; 1 where it has none. Needed for boxes on the image as stored."""
    with _opened(Path(path), str(path)) as image:
        return _orientation(image)


def check_image_size(path: str | Path, recorded: Frame) -> None:
    """Raise `ImageError` if the image does not have the size in its record: the boxes would be wrong."""
    found = image_size(path)
    if found == recorded:
        return
    swapped = found == Frame(recorded.height, recorded.width)
    hint = " (the record was written before EXIF orientation)" if swapped else ""
    raise ImageError(
        f"{path}: the image is {found.width:g} x {found.height:g}, its record says {recorded.width:g} x "
        f"{recorded.height:g}{hint}"
    )


def phash(image: Image.Image) -> str:
    """Return the perceptual hash of an image: 64 bits as 16 hexadecimal digits, similar for near-duplicates."""
    import imagehash

    return str(imagehash.phash(image))


@contextmanager
def _opened(source: Path | IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image lazily; every error of the file becomes `ImageError`."""
    if isinstance(source, Path) and not is_file(source):
        raise ImageError(f"{name:.300}: no such image file")
    try:
        with warnings.catch_warnings():
            # Pillow warns above 89 million pixels; `max_pixels` is checked below instead.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(f"{name}: {image.width} x {image.height} pixels; the limit is {max_pixels}")
                yield image
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: claims more pixels than the limit of {MAX_PIXELS}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_what_it_is(source)}") from None
    except _BROKEN as error:
        raise ImageError(f"{name}: cannot be read as an image, perhaps truncated: {error}") from error


def _what_it_is(source: Path | IO[bytes]) -> str:
    """Say what a file is that Pillow does not know."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            start = file.read(64)
    else:
        source.seek(0)
        start = source.read(64)
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return "a HEIC photo, which Pillow does not read; convert it to JPEG (on Linux: heif-convert a.heic a.jpg)"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the image; `git lfs pull` fetches it"
    if not start:
        return "an empty file, not an image"
    return f"not an image in a format that is read ({', '.join(FORMATS)}); save it as PNG or JPEG"


def _oriented_rgb(image: Image.Image) -> Image.Image:
    transpose = _TRANSPOSE.get(_pending_orientation(image))
    image.load()
    plain = _rgb(image)
    if transpose is not None:
        plain = plain.transpose(transpose)
    elif plain is image:
        plain = image.copy()  # the caller closes the opened one
    plain.info = {}
    return plain


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image; values outside 1..8, which do occur, count as 1.

    Pillow's method for PNG decodes the whole image to find an orientation stored after the pixels. `open_image` and
    `image_size` both ignore that one, because a size must come from the header alone.
    """
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if value in _TRANSPOSE else 1


def _pending_orientation(image: Image.Image) -> int:
    """Return the orientation that is still to be applied. Pillow itself applies it to TIFF, and to its `size`."""
    return 1 if image.format == "TIFF" else _orientation(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bit(image).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale a grey image of 16 or 32 bits or of floats to 8 bits (Pillow itself would clip it to white).

    16-bit files use 0..65535. The range of wider ones follows from their largest value: 1, 255 or 65535.
    """
    import numpy as np

    grey = np.asarray(image).astype(np.float64)
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 65535):  # true for NaN too
        raise ValueError(f"grey values from {low:g} to {high:g}; scale it to 8 bits first")
    if image.mode.startswith("I;16") or high > 255:
        grey /= 257
    elif image.mode == "F" and high <= 1:
        grey *= 255
    return Image.fromarray(np.round(grey).astype(np.uint8))


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG or JPEG, by the path's suffix, in one step."""
    data = BytesIO()  # Pillow's own writing to a file takes a short write, on a full disk, for a whole one
    image.save(data, format="PNG" if path.suffix == ".png" else "JPEG", quality=JPEG_QUALITY)  # PNG has no quality
    write_bytes(path, data.getvalue())
