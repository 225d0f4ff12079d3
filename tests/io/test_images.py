"""Images that survive the field: CMYK, rotated, transparent, 16-bit; broken files reported by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mllm.boxes import Box, Frame
from mllm.errors import ImageError
from mllm.io.images import FORMATS, check_image_size, exif_orientation, image_from_bytes, image_size, open_image, phash

WHITE, RED = (255, 255, 255), (255, 0, 0)
WIDTH, HEIGHT = 48, 32
NUMBERS = (6, 4, 24, 12)


def drawn(mode: str = "RGB") -> Image.Image:
    """A white image with a red box at NUMBERS."""
    image = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    ImageDraw.Draw(image).rectangle((6, 4, 23, 11), fill=RED)
    return image.convert(mode)


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


MODES = {
    "png": ("RGB", "L", "1", "P", "RGBA", "LA"),
    "jpg": ("RGB", "L", "1", "CMYK", "YCbCr"),
    "tif": ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK"),  # not YCbCr: Pillow 12 cannot read what it writes there
    "webp": ("RGB", "L", "P", "RGBA", "LA"),
    "gif": ("RGB", "L", "1", "P", "RGBA"),
    "bmp": ("RGB", "L", "1", "P", "RGBA"),
}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, modes in MODES.items() for mode in modes])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    drawn(mode).save(file)
    image = open_image(file)
    assert image.mode == "RGB" and image.size == (WIDTH, HEIGHT)
    assert image_size(file) == Frame(WIDTH, HEIGHT)
    assert all(channel > 245 for channel in pixel(image, 40, 28))
    if mode not in ("L", "1", "LA"):
        red, green, blue = pixel(image, 15, 8)
        assert red > 200 and green < 60 and blue < 60


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 128), (0, 0, 4, 8))
    image.save(tmp_path / "rgba.png")
    loaded = open_image(tmp_path / "rgba.png")
    assert pixel(loaded, 6, 4) == WHITE
    assert pixel(loaded, 1, 4) == (255, 127, 127)

    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.paste(1, (0, 0, 4, 8))
    palette.save(tmp_path / "palette.png", transparency=0)
    loaded = open_image(tmp_path / "palette.png")
    assert pixel(loaded, 6, 4) == WHITE and pixel(loaded, 1, 4) == RED


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, WIDTH).astype(np.uint16)[None].repeat(HEIGHT, axis=0)
    Image.fromarray(ramp).save(tmp_path / f"deep.{suffix}")
    grey = np.asarray(open_image(tmp_path / f"deep.{suffix}"))[0, :, 0]
    assert grey.tolist() == np.round(ramp[0] / 257).tolist()


@pytest.mark.parametrize(("top", "scale"), [(1.0, 255), (255.0, 1), (65535.0, 1 / 257)])
def test_floats_are_taken_by_their_largest_value(tmp_path: Path, top: float, scale: float) -> None:
    ramp = np.linspace(0, top, WIDTH, dtype=np.float32)[None].repeat(HEIGHT, axis=0)
    Image.fromarray(ramp).save(tmp_path / "float.tif")
    grey = np.asarray(open_image(tmp_path / "float.tif"))[0, :, 0]
    assert np.abs(grey - ramp[0] * scale).max() <= 0.51


@pytest.mark.parametrize("value", [-5.0, 1e9, float("nan")])
def test_grey_of_unknown_scale_is_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.full((4, 4), value, dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match=r"float\.tif.*scale it to 8 bits"):
        open_image(tmp_path / "float.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_the_box_follows(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    drawn().save(tmp_path / f"turned.{suffix}", exif=exif, quality=95)
    file = tmp_path / f"turned.{suffix}"
    seen = open_image(file)

    assert exif_orientation(file) == orientation
    frame = image_size(file)
    assert (frame.width, frame.height) == seen.size
    box = Box.from_xyxy(NUMBERS, Frame(WIDTH, HEIGHT)).oriented(orientation)
    reddish = np.asarray(seen)[:, :, 1] < 128
    ys, xs = np.nonzero(reddish)
    found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert box.to_xyxy(frame) == pytest.approx(found, abs=1 if suffix == "jpg" else 1e-9)

    seen.save(tmp_path / "again.png")  # nothing is left that could turn it once more
    assert exif_orientation(tmp_path / "again.png") == 1
    assert open_image(tmp_path / "again.png").tobytes() == seen.tobytes()


def test_an_orientation_that_does_not_exist_means_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    drawn().save(tmp_path / "a.png", exif=exif)
    assert open_image(tmp_path / "a.png").tobytes() == drawn().tobytes()
    assert exif_orientation(tmp_path / "a.png") == 1


def bad_files(folder: Path) -> dict[str, str]:
    """Bad files by name, with what the message says."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.png")
    Image.fromarray(noise).save(folder / "whole.jpg")
    Image.fromarray(noise).save(folder / "whole.webp", lossless=True)
    for suffix in ("png", "jpg", "webp"):
        data = (folder / f"whole.{suffix}").read_bytes()
        (folder / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
    data = (folder / "whole.png").read_bytes()
    (folder / "flipped.png").write_bytes(data[:60] + bytes([data[60] ^ 255]) + data[61:])
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "empty.jpg").touch()
    (folder / "folder.jpg").mkdir()
    return {
        "cut.png": "cannot be read",
        "cut.jpg": "cannot be read",
        "cut.webp": "",
        "flipped.png": "cannot be read",
        "page.jpg": "not an image",
        "empty.jpg": "not an image",
        "folder.jpg": "no such image file",
        "missing.jpg": "no such image file",
    }


def test_bad_files_are_reported_by_name(tmp_path: Path) -> None:
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and message in str(caught.value)
    assert image_size(tmp_path / "cut.png") == Frame(64, 64)  # the header is whole


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that claims to be enormous."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 13_000, 60_000])  # ours; above Pillow's warning; above Pillow's error
@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_refused_before_decoding(tmp_path: Path, side: int) -> None:
    file = tmp_path / "bomb.png"
    file.write_bytes(huge_png(side, side))
    for door in (open_image, image_size):
        with pytest.raises(ImageError, match=r"bomb\.png.*limit"):
            door(file)


def test_images_in_memory(tmp_path: Path) -> None:
    drawn().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert image_from_bytes(data, "row 3").tobytes() == drawn().tobytes()
    with pytest.raises(ImageError, match="^row 3: not an image"):
        image_from_bytes(b"nothing", "row 3")


def test_a_record_of_another_size_is_caught(tmp_path: Path) -> None:
    drawn().save(tmp_path / "a.png")
    check_image_size(tmp_path / "a.png", Frame(WIDTH, HEIGHT))
    with pytest.raises(ImageError, match="the image is 48 x 32, its record says 32 x 48 .*EXIF"):
        check_image_size(tmp_path / "a.png", Frame(HEIGHT, WIDTH))
    with pytest.raises(ImageError, match="its record says 50 x 32$"):
        check_image_size(tmp_path / "a.png", Frame(50, HEIGHT))


def distance(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def test_the_perceptual_hash_tells_images_from_copies(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    one, other = (
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
        for _ in range(2)
    )
    one.save(tmp_path / "copy.jpg", quality=70)
    assert len(phash(one)) == 16
    assert distance(phash(one), phash(open_image(tmp_path / "copy.jpg"))) <= 6
    assert distance(phash(one), phash(other)) > 12


@pytest.mark.parametrize(
    ("start", "message"),
    [(b"\0\0\0\x18ftypheic", "a HEIC photo.*convert it to JPEG"), (b"version https://git-lfs.g", "git lfs pull")],
)
def test_files_in_the_place_of_a_picture_are_told_by_their_beginning(
    tmp_path: Path, start: bytes, message: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(start + b"\0" * 40)
    with pytest.raises(ImageError, match=f"a.jpg: .*{message}"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=f"cell: .*{message}"):
        image_from_bytes(start + b"\0" * 40, "cell")


# Real photos ----------------------------------------------------------------------------------------------------------


def test_camera_trap_photos(shared_data: Path) -> None:
    folder = shared_data / "speciesnet_test_images"
    plain = open_image(folder / "african_elephants.jpg")
    assert plain.size == (2048, 1536)
    for name in ("african_elephants_cmyk.jpg", "african_elephants_with_exif_orientation.jpg"):
        same = open_image(folder / name)
        assert same.mode == "RGB" and image_size(folder / name) == Frame(2048, 1536)
        off = np.asarray(same.resize((64, 48))).astype(int) - np.asarray(plain.resize((64, 48)))
        assert np.abs(off).mean() < 8  # the same scene, in the same colours, the same way up
        assert distance(phash(same), phash(plain)) <= 4
    assert exif_orientation(folder / "african_elephants_with_exif_orientation.jpg") != 1
    broken = folder / "african_elephants_truncated_file.jpg"
    with pytest.raises(ImageError, match="african_elephants_truncated_file.jpg: cannot be read .*truncated"):
        open_image(broken)
    assert image_size(broken) == Frame(2048, 1536)


def png_of(side: int) -> bytes:
    """A black PNG, small as a file."""
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "PNG", compress_level=9)
    return file.getvalue()


def icon_around(content: bytes) -> bytes:
    """An ICO file that says 256 x 256 and holds another image."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(content), 22) + content


def mac_icon_around(content: bytes) -> bytes:
    part = b"ic10" + struct.pack(">I", len(content) + 8) + content
    return b"icns" + struct.pack(">I", len(part) + 8) + part


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    drawn().save(file, kind)
    return file.getvalue()


FOREIGN = {
    "eps": lambda: saved("EPS"),
    "ico": lambda: icon_around(png_of(3000)),
    "cur": lambda: icon_around(png_of(3000)).replace(b"\0\0\1\0", b"\0\0\2\0", 1),
    "icns": lambda: mac_icon_around(png_of(1024)),
    "im": lambda: saved("IM"),
    "dds": lambda: saved("DDS"),
    "wmf": lambda: b"\xd7\xcd\xc6\x9a" + bytes(40),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_formats_that_run_programs_or_decode_on_opening_are_refused(kind: str, tmp_path: Path, monkeypatch) -> None:
    def decoded(self, *_):
        raise AssertionError("nothing is decoded before the format is known")

    content = FOREIGN[kind]()
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", decoded)
    for name in (f"a.{kind}", "a.png"):  # the name of a file says nothing
        file = tmp_path / name
        file.write_bytes(content)
        for opener in (open_image, image_size, exif_orientation):
            with pytest.raises(ImageError, match=rf"{name}: not an image in a format that is read \(AVIF, .*WEBP\)"):
                opener(file)
    with pytest.raises(ImageError, match="row 1: not an image in a format"):
        image_from_bytes(content, "row 1")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list_opens(kind: str) -> None:
    image = image_from_bytes(saved(kind), "row 1")
    assert image.size == (WIDTH, HEIGHT) and all(channel > 245 for channel in pixel(image, 40, 28))


def test_a_photo_of_two_pictures_opens(tmp_path: Path) -> None:
    file = tmp_path / "phone.jpg"
    drawn().save(file, "MPO", save_all=True, append_images=[drawn()])
    assert open_image(file).size == (WIDTH, HEIGHT) and image_size(file) == Frame(WIDTH, HEIGHT)
