"""eval/captions.py: captions of a real (random) pocket model are written, gone on with, and read by a benchmark."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from eval import captions
from mllm.data import caption_stats
from mllm.errors import FieldmarkError
from mllm.records import load_samples
from tests.support.scenes import make_captions, make_data


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_captions(tmp_path_factory.mktemp("captions"), "test", families=1, size=3)


def test_captions_are_written_once_and_read_by_benchmarks(
    file: Path, pocket_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(pocket_folder), "--samples", str(file), "--out", str(tmp_path), "--max-new-tokens", "4"]
    captions.main(flags)
    info = caption_stats.read_captions(tmp_path / "outputs.jsonl")
    assert set(info) == {sample.id for sample in load_samples(file)}
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["text"]["captions"] == 3 and 0 <= scores["text"]["precision"]["value"] <= 1
    assert scores["text"]["truncated"] == 1.0, "four tokens are too few for random weights"
    assert "3 captions of" in capsys.readouterr().out
    before = (tmp_path / "outputs.jsonl").read_bytes()
    captions.main(flags)
    assert (tmp_path / "outputs.jsonl").read_bytes() == before
    with pytest.raises(FieldmarkError, match="outputs of another run"):
        captions.main([*flags, "--limit", "2"])


def test_a_folder_of_images_is_enough(file: Path, pocket_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, sample in enumerate(load_samples(file)[:2]):
        name = "COCO_val2014_000000000042" if number else "mine"
        shutil.copy(file.parent / sample.image, folder / f"{name}.png")
    out = tmp_path / "out"
    captions.main(["--model", str(pocket_folder), "--images", str(folder), "--out", str(out), "--max-new-tokens", "2"])
    assert set(caption_stats.read_captions(out / "outputs.jsonl")) == {"mine", "42"}
    shutil.copy(folder / "mine.png", folder / "42.png")
    with pytest.raises(FieldmarkError, match="two images are called '42'"):
        captions.main(["--model", str(pocket_folder), "--images", str(folder), "--out", str(out)])


def test_a_list_gives_the_ids_that_a_benchmark_looks_up(file: Path, pocket_folder: Path, tmp_path: Path) -> None:
    """As eval/imagecode.py prints it: set/target, tab, file; the same file names occur in every set."""
    image = file.parent / load_samples(file)[0].image
    (tmp_path / "list.txt").write_text("".join(f"{key}\t{image}\n" for key in ("one/0", "two/0", "two/9")))
    info = ["--model", str(pocket_folder), "--list", str(tmp_path / "list.txt"), "--max-new-tokens", "2"]
    captions.main([*info, "--out", str(tmp_path / "out")])
    assert set(caption_stats.read_captions(tmp_path / "out/outputs.jsonl")) == {"one/0", "two/0", "two/9"}
    (tmp_path / "list.txt").write_text(f"a\t{image}\nb nothing\n")
    with pytest.raises(FieldmarkError, match=r"list.txt:2: an id, a tab and an image file are needed, got 'b nothing'"):
        captions.main([*info, "--out", str(tmp_path / "other")])


def test_what_is_no_image_to_caption_is_refused(tmp_path: Path) -> None:
    train, _ = make_data(tmp_path, train=1, validation=1)
    with pytest.raises(FieldmarkError, match="no sample has task 'caption'"):
        captions.main(["--samples", str(train), "--out", str(tmp_path / "out")])
    with pytest.raises(FieldmarkError, match="--samples FILE, --images FOLDER, or --list"):
        captions.main(["--out", str(tmp_path / "out")])
