"""The images in docs/images: each is shown on a page, can be made again by a script, and is small."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import pytest

from tests.support.pages import PAGES, ROOT

IMAGES = ROOT / "docs" / "images"
LARGEST = 150_000


@pytest.fixture(scope="module")
def screenshots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / ".ci" / "screenshots.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_image_is_made_shown_and_small(screenshots: ModuleType) -> None:
    there = {file.stem for file in IMAGES.iterdir()}
    visible = {name for page in PAGES for name in re.findall(r"images/(\w+)\.png\)", page.read_text(encoding="utf-8"))}
    drawn = {"engine", "base_and_tuned"}  # by `make bench` and by .ci/base_and_tuned.py
    assert there == visible == set(screenshots.IMAGES) | drawn
    large = {file.name: file.stat().st_size for file in IMAGES.iterdir() if file.stat().st_size > LARGEST}
    assert not large


def test_a_terminal_becomes_an_svg_that_loads_nothing(screenshots: ModuleType) -> None:
    svg = screenshots.terminal_svg("find> wren\r\n\x1b[2ma small bird\x1b[0m\r\nwren: 10, 20", "fieldmark chat MODEL")
    assert "small&#160;bird" in svg and "fieldmark&#160;chat" in svg.replace(" ", "&#160;")
    assert not re.findall(r"url\(\s*[\"']?http|href=[\"']http", svg) and "@font-face" not in svg


def test_what_a_terminal_shows_is_read_up_to_the_prompt(screenshots: ModuleType) -> None:
    import os
    import pty

    terminal, child = pty.openpty()
    os.write(child, b"loading ...\nfind> ")
    assert screenshots.read_until(terminal, "find> ", timeout=5).replace("\r\n", "\n") == "loading ...\nfind> "
    with pytest.raises(SystemExit, match="'find> ' did not appear in the terminal"):
        screenshots.read_until(terminal, "find> ", timeout=0.2)
    os.close(child)
    os.close(terminal)
