"""Photos in folders: what is read, what is passed over and counted, and what is no folder of kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mllm.boxes import Frame
from mllm.data.sources import SourceError
from tests.data.sources.test_sources import draw, read


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        if name.endswith((".jpg", ".JPG", ".jfif")):
            draw(root / f"{name}.jpg").rename(root / name)
        else:
            (root / name).write_bytes(b"x")
    return root


def test_what_is_passed_over_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder_of(
        tmp_path / "birds", "wren/a.jpg", "wren/b.JPG", "wren/c.jfif", "wren/d.HEIC", "wren/e.heic", "loose.jpg",
        "robin/more/f.jpg", "wren/g.psd", "wren/.h.jpg", ".ipynb_checkpoints/i.jpg", "wren/.thumbs/j.jpg", "readme.txt",
    )  # fmt: skip
    photos = read("image_folder", root, domain="bird", whole_image_boxes=True)
    assert [photo.id for photo in photos] == ["wren/a.jpg", "wren/b.JPG", "wren/c.jfif"]
    assert caplog.messages == [
        f"{root}: 5 files passed over: .heic: Pillow does not read HEIC, convert them to .jpg: 2 (wren/d.HEIC); "
        ".psd: not read as pictures: 1 (wren/g.psd); in folders that are too deep: 1 (robin/more/f.jpg); "
        "loose in the folder: 1 (loose.jpg)"
    ]


@pytest.mark.parametrize("kind, suffix", [("AVIF", ".avif"), ("JPEG", ".jpe"), ("PPM", ".ppm"), ("WEBP", ".WEBP")])
def test_formats_that_pillow_reads_are_taken(tmp_path: Path, kind: str, suffix: str) -> None:
    (tmp_path / "wren").mkdir()
    Image.new("RGB", (40, 20), "teal").save(tmp_path / "wren" / f"a{suffix}", format=kind)
    (photo,) = read("image_folder", tmp_path, domain="bird", whole_image_boxes=True)
    assert photo.size == Frame(40, 20)


@pytest.mark.parametrize(
    "names, message",
    [
        (("JPEGImages/a.jpg",), "JPEGImages, which names no kind: this looks like Pascal VOC"),
        (("train/a.jpg", "test/b.jpg"), "called test, train, which names no kind: .*divided already"),
        (("images/a.jpg",), "called images, which names no kind.*--source csv"),
    ],
)
def test_folders_of_another_layout_are_no_kinds(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read("image_folder", folder_of(tmp_path, *names), domain="bird", whole_image_boxes=True)
    more = folder_of(tmp_path / "kinds", *names, "wren/c.jpg")  # beside a kind they may be kinds
    assert len(read("image_folder", more, domain="bird", whole_image_boxes=True)) == len(names) + 1


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\u2029", "\x0c"])
def test_only_a_newline_ends_a_line(tmp_path: Path, odd: str) -> None:
    name = f"a{odd}b.jpg"
    draw(tmp_path / "wren" / name)
    draw(tmp_path / "wren" / "c.jpg")
    rows = [{"image": f"wren/{one}", "box": [0, 0, 9, 9]} for one in (name, "c.jpg")]
    lines = [json.dumps(row, ensure_ascii=odd == "\x0c") for row in rows]  # JSON needs an escape for a form feed
    (tmp_path / "boxes.jsonl").write_bytes("\r\n".join(lines).encode())
    assert [photo.id for photo in read("image_folder", tmp_path, domain="bird")] == [f"wren/{name}", "wren/c.jpg"]
