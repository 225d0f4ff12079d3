"""A data folder belongs to one set of settings and one run at a time; its stages go on after any stop."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from PIL import Image

from mllm.boxes import Box, Frame
from mllm.data import manifest
from mllm.errors import FieldmarkError
from mllm.io.images import save_image
from mllm.records import Photo, read_jsonl
from mllm.synthesis.stages import Stage, in_order


def photo(name: str) -> Photo:
    return Photo(name, f"{name}.jpg", Frame(4, 4), "bird", "wren", (Box(0, 0, 1, 1),))


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


def test_a_stage_goes_on_after_a_torn_row_and_after_its_last_step(tmp_path: Path) -> None:
    file = tmp_path / "photos.jsonl"
    first = Stage(file, Photo)
    first.add(photo("a"))
    first.add(photo("b"))
    text = first.log.read_text()
    first.log.write_text(text[:-30])
    again = Stage(file, Photo)
    assert again.done == 1 and not again.finished
    again.add(photo("b"))
    again.close()
    assert [row.id for row in read_jsonl(file, Photo)] == ["a", "b"] and not again.log.exists()
    again.log.write_text(text)  # as if it had been killed between renaming and tidying up
    assert Stage(file, Photo).finished and not again.log.exists()
    empty = Stage(tmp_path / "none.jsonl", Photo)
    empty.close()
    assert empty.file.read_text() == ""


def test_in_order_runs_ahead_only_a_little_and_passes_errors_on() -> None:
    made, taken, lock = [0], 0, threading.Lock()

    def make(number: int) -> int:
        with lock:
            made[0] += 1
        if number == 50:
            raise FieldmarkError("fifty")
        return number

    with pytest.raises(FieldmarkError, match="fifty"):
        for value in in_order(make, range(100), 3):
            assert value == taken
            taken += 1
            assert made[0] - taken <= 6
    assert taken == 50


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_images_are_written_whole_and_the_same(tmp_path: Path, ending: str) -> None:
    image = Image.effect_noise((64, 40), 60).convert("RGB")
    for name in "ab":
        save_image(image, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
