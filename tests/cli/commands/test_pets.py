"""Real cats and dogs through the whole chain with the pocket model: the stages, and, slowly, the real thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm.cli.commands import pets
from mllm.errors import FieldmarkError
from mllm.records import load_samples


def test_every_stage_reads_what_an_earlier_one_wrote(tmp_path: Path) -> None:
    out = tmp_path / "pets"
    words = [" ".join(stage.arguments) for stage in pets.pets_stages(pets.Options(tmp_path, out))]
    written = [out / "data", out / "cot", out / "rl", out / "eval/base", out / "eval/cot", out / "eval/rl"]
    for number, folder in enumerate(written):
        assert str(folder) in words[number]
        assert any(str(folder) in later for later in words[number + 1 :])


def test_a_folder_without_photos_is_named(tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match=r"annotations\.json: not there; .*--data"):
        pets.command(pets.Options(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_real_photos_go_through_whole(shared_data: Path, pocket_folder: Path, tmp_path: Path) -> None:
    if not (shared_data / pets.PHOTOS).is_dir():
        pytest.skip("the pets sample is not there")
    pets.command(pets.Options(shared_data, tmp_path / "out", str(pocket_folder), fast=True))
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    rows = load_samples(tmp_path / "out/data/test.jsonl")
    assert len(rows) == 4 and {row.domain for row in rows} <= {"cat", "dog"}
    for name in ("base", "cot", "rl"):
        every = json.loads((tmp_path / "out/eval" / name / "scores.json").read_text())["slices"]["all"]
        assert every["samples"] == len(rows)
        assert 0 <= every["chance"] < 1
