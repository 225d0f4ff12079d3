"""A set as the Hub wants it: pushed with the real client to a hub on loopback, and opened again with `datasets`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from data_synth import grounding
from mllm.data.hub import licence_of, pack
from mllm.errors import FieldmarkError
from mllm.records import load_samples
from tests.support import hub
from tests.support.command_line import fieldmark


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hubdata") / "birds"
    counts = ["--train", "6", "--validation", "2", "--test", "2", "--descriptions", "0.5"]
    grounding.main(["--domain", "bird", "--photos-per-entity", "3", *counts, "--out", str(out)])
    return out


@pytest.mark.ci
def test_what_is_pushed_is_opened_as_it_was_made(made: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    with hub.serving() as served:
        words = ["push", str(made), "me/birds", "--private", "--out", str(packed)]
        done = subprocess.run(
            [sys.executable, "-m", "mllm.cli", *words],
            env=os.environ | hub.environment(served), text=True, capture_output=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        (repository,) = served.made
        assert (repository["name"], repository["type"], repository["visibility"]) == ("birds", "dataset", "private")
        (pushed,) = served.files.values()
    assert set(pushed) == {
        "README.md",
        *(f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")),
    }
    assert all((packed / name).read_bytes() == content for name, content in pushed.items())
    data = DatasetCard(pushed["README.md"].decode()).data
    assert (data["license"], data["size_categories"]) == ("cc0-1.0", "n<1K") and "visual-grounding" in data["tags"]
    assert "# Data card" in pushed["README.md"].decode()
    opened: Any = load_dataset(str(packed), cache_dir=str(tmp_path / "cache"))
    for split, rows in opened.items():
        samples = load_samples(made / f"{split}.jsonl")
        assert [row["id"] for row in rows] == [sample.id for sample in samples]
        for row, sample in zip(rows, samples, strict=True):
            with Image.open(made / sample.image) as image:
                assert row["image"].tobytes() == image.convert(row["image"].mode).tobytes()
            assert row["boxes"] == [list(astuple(box)) for box in sample.boxes], "boxes are exact"
            assert [thing["entity"] for thing in row["things"]] == [thing.entity for thing in sample.things]
            assert (row["thought"], row["seen"]) == (sample.thought, sample.seen)
            assert json.loads(row["provenance"]) == json.loads(json.dumps(dict(sample.provenance)))


@pytest.mark.ci
def test_large_sets_are_cut_into_shards(made: Path, tmp_path: Path) -> None:
    files = pack(made, tmp_path / "packed", shard_bytes=1)
    assert [file.name for file in files if "train" in file.name] == [
        f"train-{k:05d}-of-00006.parquet" for k in range(6)
    ]


def test_what_is_not_pushed(made: Path, tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match=r"holds no manifest.json: not a data set, or an unfinished one"):
        pack(tmp_path, tmp_path / "packed")
    with pytest.raises(FieldmarkError, match="is not empty"):
        pack(made, made)
    with pytest.raises(FieldmarkError, match=r"3 images name no licence; give --licence"):
        licence_of({"CC-BY-4.0": 2, "not stated": 3}, made)
    out = tmp_path / "dry"
    done = fieldmark(["push", str(made), "me/birds", "--dry-run", "--licence", "mit", "--out", str(out)])
    assert done.exit_code == 0 and "4 files" in done.output and "pushed: " not in done.output
    assert DatasetCard.load(out / "README.md").data["license"] == "mit"


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"CC0-1.0 (drawn by Fieldmark)": 3}, "cc0-1.0"),
        ({"CC-BY-SA-4.0": 1, "CC-BY-SA-4.0 (J. Doe)": 2}, "cc-by-sa-4.0"),
        ({"CC-BY-4.0": 1, "CC0-1.0": 2}, "other"),
        ({"all rights reserved": 1}, "other"),
    ],
)
def test_terms_by_the_hubs_names(terms: dict[str, int], expected: str) -> None:
    assert licence_of(terms, Path()) == expected
