"""`fieldmark photos` on exports: columns under other names, and images without a file of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.sources.test_export_errors import LABELS, packed
from tests.data.sources.test_sources import draw
from tests.support.command_line import fieldmark


def test_columns_and_images_in_tar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = draw(tmp_path / "a.jpg").read_bytes()
    (tmp_path / "t.csv").write_text("image,species,x1,y1,x2,y2\na.jpg,robin,4,2,14,10\n")
    packed(tmp_path / "t.tar", {"a.jpg": image, "a.json": json.dumps(LABELS).encode()})
    there = sorted(tmp_path.iterdir())
    for given in (["t.csv", "--source", "csv", "--column", "entity=species"], ["t.tar", "--source", "webdataset"]):
        ended = fieldmark(["photos", *given, "--domain", "bird"])
        assert "1 photos of 1 kinds" in ended.output and "cannot be used" not in ended.output
    assert sorted(tmp_path.iterdir()) == there, "nothing is left behind"
    for pair in ("entity", "=x", "entity="):
        ended = fieldmark(["photos", "t.csv", "--source", "csv", "--column", pair])
        assert ended.exit_code and f"--column {pair}: OURS=THEIRS is needed" in ended.output
