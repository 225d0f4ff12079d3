"""A data folder belongs to one set of settings and one run at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mllm.data import manifest
from mllm.errors import FieldmarkError
from mllm.io.images import save_image


def test_a_folder_is_held_finished_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "a" / "data"
    with manifest.claim(out, {"seed": 1, "things": (2, 6)}) as whole:
        assert whole is None
        with pytest.raises(FieldmarkError, match="another run is using"), manifest.claim(out, {"seed": 1}):
            pass
        (out / "train.jsonl").write_text("x")
        (out / "images").mkdir()
        (out / "images" / "1.png").write_bytes(b"1")
        made = manifest.finish(out, {"samples": 1}, ["train.jsonl", "images"])
    with manifest.claim(out, {"seed": 1, "things": [2, 6]}) as whole:
        assert whole == made == json.loads((out / "manifest.json").read_text())
    with (
        pytest.raises(FieldmarkError, match=r"seed = 1, now it is 2.*--out"),
        manifest.claim(out, {"seed": 2, "things": [2, 6]}),
    ):
        pass
    with manifest.claim(out, {"seed": 2}, overwrite=True) as whole:
        assert whole is None and [path.name for path in out.iterdir()] == ["settings.json"]


def test_settings_may_change_while_no_stage_is_finished(tmp_path: Path) -> None:
    with manifest.claim(tmp_path, {"seed": 1}):
        (tmp_path / "photos.part.jsonl").write_text("half")
    with manifest.claim(tmp_path, {"seed": 2}) as whole:
        assert whole is None and not (tmp_path / "photos.part.jsonl").exists()


def test_strange_folders_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"editor": "mine"}')
    for overwrite in (False, True):
        with pytest.raises(FieldmarkError, match="not made by this program"):
            with manifest.claim(tmp_path, {}, overwrite=overwrite):
                pass
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(FieldmarkError, match="settings.json:1: broken JSON"), manifest.claim(tmp_path, {}):
        pass
    assert (tmp_path / "settings.json").read_text() == "{"
    (tmp_path / "settings.json").write_text('{"a":' * 5000)
    with pytest.raises(FieldmarkError, match="nested too deeply; delete the folder"), manifest.claim(tmp_path, {}):
        pass


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_images_are_written_whole_and_the_same(tmp_path: Path, ending: str) -> None:
    image = Image.effect_noise((64, 40), 60).convert("RGB")
    for name in "ab":
        save_image(image, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", [".settings.json.box-123.tmp", ".manifest.json.other-host-9.tmp", ".a.png.part"])
def test_what_a_killed_start_left_behind_is_no_obstacle(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"sch')
    with manifest.claim(tmp_path, {"seed": 0}) as whole:
        assert whole is None and [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def test_foreign_files_still_are_one(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("mine")
    with pytest.raises(FieldmarkError, match="not made by this program"), manifest.claim(tmp_path, {"seed": 0}):
        pass
    assert (tmp_path / ".hidden").exists()


def test_overwriting_removes_links_and_not_what_they_point_to(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "a.jpg").write_text("a photo")
    with manifest.claim(out, {"seed": 0}):
        (out / "images").symlink_to(photos, target_is_directory=True)
        (out / "notes").symlink_to(photos / "a.jpg")
        (out / "gone").symlink_to(tmp_path / "nowhere")
        (out / "folder").mkdir()
    with manifest.claim(out, {"seed": 1}, overwrite=True):
        assert [path.name for path in out.iterdir()] == ["settings.json"]
    assert (photos / "a.jpg").read_text() == "a photo"
