"""Grounding data of photos that show several kinds, made as a user makes it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from mllm.records import SPLITS
from tests.support.synthesis import make, samples

KINDS = {f"{domain} {number}": domain for domain in ("bird", "car") for number in range(6)}


def user_scenes(folder: Path) -> list[str]:
    """Write thirty pictures of three kinds of two domains and twelve of one, a table of their boxes and cards."""
    rows = ["image,entity,domain,x1,y1,x2,y2"]
    for number in range(42):
        rng = random.Random(number)
        chosen = rng.sample(list(KINDS), 3) if number < 30 else [list(KINDS)[number % 12]]
        Image.frombytes("RGB", (12, 4), rng.randbytes(144)).resize((300, 100)).save(folder / f"{number}.png")
        for k, name in enumerate(chosen):
            rows.append(f"{number}.png,{name},{KINDS[name]},{100 * k + 9},9,{100 * k + 91},91")
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    (folder / "cards.json").write_text(json.dumps({name: [f"{name} mark"] for name in KINDS}))
    given = ["--source", "csv", "--input", str(folder / "t.csv"), "--knowledge", str(folder / "cards.json")]
    return [*given, "--sheet", "0"]


def test_scenes_of_a_user_become_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mllm.cli.__main__ import fieldmark

    given = user_scenes(tmp_path)
    counts = ["--train", "8", "--validation", "3", "--test", "4", "--absent", "0.3", "--unseen-share", "0.1"]
    facts = make(tmp_path / "out", *given, *counts, "--scenes", "1")
    rows = samples(tmp_path / "out")
    assert [facts["samples"][side]["layout"] for side in SPLITS] == [{"scene": 8}, {"scene": 3}, {"scene": 4}]
    unseen = {row.entity for row in rows if not row.seen}
    assert unseen and not unseen & {thing.entity for row in rows if row.split == "train" for thing in row.things}
    assert all(len(row.things) == 3 and row.provenance["photos"][0].endswith(".png") for row in rows)
    assert {row.domain for row in rows} == {"bird", "car"}
    table = (tmp_path / "out" / "attribution.csv").read_text()
    assert any(line.count("; ") >= 2 for line in table.split("\n")), "every kind of a photo is listed"
    fieldmark(["inspect", str(tmp_path / "out" / "train.jsonl")])
    fieldmark(["photos", str(tmp_path / "t.csv"), "--source", "csv", "--unseen-share", "0.1"])
    assert "scenes, photos of several kinds: 30, with 90 things" in capsys.readouterr().out
