"""Making grounding data: what is written, that nothing leaks, that a killed run ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mllm.boxes import Box, Frame, iou
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl
from mllm.models import families
from mllm.pocket.species import find, species
from mllm.records import REFERENCE, SPLITS, Photo, load_samples
from mllm.synthesis import lineups, thoughts
from tests.support.faulty_server import serving
from tests.support.killing import contents, killed_and_whole
from tests.support.synthesis import make, no_look_alikes_between_sides, samples

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FIELDMARK_TEST_DATA", ROOT.parent / "shared" / "data"))
PETS, CARDS = DATA / "oxford_pets_sample", DATA / "fg_knowledge" / "descriptors" / "descriptors_pets.json"
SMALL = ["--train", "30", "--validation", "12", "--test", "18", "--photos-per-entity", "4", "--domain", "bird"]


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of one pocket domain."""
    out = tmp_path_factory.mktemp("pocket") / "data"
    make(out, *SMALL)
    return out


def test_every_sample_is_whole_and_sound(pocket: Path) -> None:
    family = families.load("pocket")
    rows = samples(pocket)
    assert [sum(row.split == side for row in rows) for side in SPLITS] == [30, 12, 18]
    for row in rows:
        assert Frame(*open_image(pocket / row.image).size) == row.size
        assert row.question == f"Find the bird {row.entity}." and row.group == row.image
        assert row.thought is not None and thoughts.problem(row, row.thought) is None
        centres = [thing.box.center[0] for thing in row.things]
        assert centres == sorted(centres) and len({thing.entity for thing in row.things}) == len(row.things)
        (target,) = [thing for thing in row.things if thing.entity == row.entity]
        assert row.boxes == (target.box,) and target.marks == find(row.entity).marks
        frame = family.frame(row.size, family.budget)
        pixels = row.size.width * row.size.height
        assert family.budget.min_pixels <= pixels <= family.budget.max_pixels, "the processor has nothing to resize"
        assert row.size.width % family.factor == row.size.height % family.factor == 0
        read = family.read(family.write_thought(row.thought, row.things, frame))
        text = [int(number) for number in REFERENCE.findall(row.thought)]
        assert set(text) == set(range(len(row.things))) and text[-1] == row.things.index(target)
        assert all(iou(Box.from_xyxy(n, frame), row.things[k].box) > 0.8 for k, n in zip(text, read, strict=True))


def test_boxes_of_the_composite_enclose_the_drawn_thing(pocket: Path) -> None:
    """Pixels, not arithmetic: the things are far more colourful than their ground."""
    for row in samples(pocket)[:12]:
        pixels = np.asarray(open_image(pocket / row.image)).astype(int)
        vivid = (pixels.max(-1) - pixels.min(-1) > 90) | (pixels.max(-1) < 60)
        inside = np.zeros(vivid.shape, bool)
        for thing in row.things:
            x1, y1, x2, y2 = (round(number) for number in thing.box.to_xyxy(row.size))
            inside[y1:y2, x1:x2] = True
            assert vivid[y1:y2, x1:x2].mean() > 0.1
        assert vivid[~inside].mean() < 0.01


def test_no_held_out_entity_and_no_image_leaks(pocket: Path) -> None:
    visible: dict[str, set[str]] = defaultdict(set)
    photos: dict[str, set[str]] = defaultdict(set)
    for row in samples(pocket):
        visible[row.split] |= {thing.entity for thing in row.things}
        photos[row.split] |= set(row.provenance["photos"])
        assert row.seen == (find(row.entity).use == "train")
    use = {one.name: one.use for one in species("bird")}
    assert {use[name] for name in visible["train"]} == {"train"}
    assert {use[name] for name in visible["validation"]} <= {"train", "validation"}
    assert {use[name] for name in visible["test"]} <= {"train", "test"}
    assert not photos["train"] & (photos["validation"] | photos["test"]) and not photos["validation"] & photos["test"]
    no_look_alikes_between_sides(pocket)


def test_the_leak_test_finds_a_leak(pocket: Path, tmp_path: Path) -> None:
    rows = samples(pocket)
    for side in SPLITS:  # every side gets the training composites
        text = (pocket / "train.jsonl").read_text().replace('"split": "train"', f'"split": "{side}"')
        (tmp_path / f"{side}.jsonl").write_text(text)
    (tmp_path / "images").symlink_to(pocket / "images")
    assert rows
    with pytest.raises(AssertionError, match="show the same photo"):
        no_look_alikes_between_sides(tmp_path)


def test_the_manifest_counts_what_was_made(pocket: Path) -> None:
    facts = json.loads((pocket / "manifest.json").read_text())
    assert {side: facts["samples"][side]["samples"] for side in SPLITS} == {"train": 30, "validation": 12, "test": 18}
    assert facts["samples"]["validation"]["stratum"] == {"seen": 6, "unseen": 6}
    assert facts["samples"]["train"]["domain"] == {"bird": 30}
    assert sum(facts["photos"].values()) == len(list(read_jsonl(pocket / "split.jsonl", Photo)))
    assert facts["settings"]["seed"] == 0 and set(facts["hashes"]) >= {"train.jsonl", "images", "knowledge.json"}
    assert list(facts["licences"]) == ["CC0-1.0 (drawn by Fieldmark)"]


@pytest.mark.ci
def test_another_run_gives_the_same_bytes_whatever_the_threads_and_another_seed_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--train", "6", "--validation", "4", "--test", "4", "--photos-per-entity", "3", "--domain", "car"]
    draw, drawn = lineups.Pool.draw, set()

    def recorded(self: lineups.Pool, *values: Any, **named: Any) -> lineups.LineUp:
        drawn.update(value.getstate() for value in [*values, *named.values()] if isinstance(value, random.Random))
        return draw(self, *values, **named)

    monkeypatch.setattr(lineups.Pool, "draw", recorded)
    one = make(tmp_path / "a", *few, "--workers", "1")
    assert one["hash"] == make(tmp_path / "b", *few, "--workers", "4")["hash"]
    first = set(drawn)
    drawn.clear()
    assert one["hash"] != make(tmp_path / "c", *few, "--seed", "1")["hash"]
    assert len(first) >= 14 and len(drawn) >= 14 and not first & drawn, "the seed decides every line-up"
    assert one == make(tmp_path / "a", *few), "a whole folder is left as it is"


def test_a_folder_of_other_settings_is_not_touched(pocket: Path) -> None:
    with pytest.raises(FieldmarkError) as error:
        make(pocket, *SMALL, "--seed", "9")
    assert "made with seed = 0, now it is 9" in str(error.value)


def test_several_questions_of_an_image(tmp_path: Path) -> None:
    few = ["--train", "5", "--validation", "4", "--test", "0", "--photos-per-entity", "3", "--domain", "car"]
    make(tmp_path / "a", *few, "--questions", "2")
    rows = list(load_samples(tmp_path / "a" / "train.jsonl"))
    assert [row.image for row in rows] == [f"images/train/{n:06d}.png" for n in (0, 0, 1, 1, 2)]
    assert rows[0].entity != rows[1].entity and rows[0].group == rows[1].group
    assert len({row.id for row in rows}) == 5


@pytest.mark.ci
@pytest.mark.timeout(900)  # five starts of Python, on a machine that may be busy
def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """kill -9 at several moments (photos, samples of each side), then run again until it ends."""
    flags = ["--train", "30", "--validation", "4", "--test", "12", "--photos-per-entity", "3", "--domain", "food"]
    moments = {"photos.part.jsonl": 20_000, "train.part.jsonl": 15_000, "test.part.jsonl": 5_000}
    killed, whole = killed_and_whole("grounding.py", flags, moments, tmp_path)
    assert contents(killed) == contents(whole)


@pytest.mark.slow
@pytest.mark.skipif(not (PETS.is_dir() and CARDS.is_file()), reason="the pets sample is not there")
def test_real_photos_of_cats_and_dogs(tmp_path: Path) -> None:
    given = ["--source", "oxford_pets", "--input", str(PETS), "--knowledge", str(CARDS), "--max-side", "512"]
    facts = make(tmp_path / "pets", *given, "--train", "60", "--validation", "20", "--test", "40")
    assert list(facts["licences"]) == ["CC BY-SA 4.0 (The Oxford-IIIT Pet Dataset, Parkhi et al. 2012)"]
    assert facts["samples"]["test"]["stratum"] == {"seen": 20, "unseen": 20}
    rows = samples(tmp_path / "pets")
    unseen = {row.entity for row in rows if not row.seen}
    assert unseen and not unseen & {thing.entity for row in rows if row.split == "train" for thing in row.things}
    assert all(max(row.size.width, row.size.height) <= 512 for row in rows)
    assert len({row.thought for row in rows}) == len(rows) and len({row.question for row in rows}) > 40
    no_look_alikes_between_sides(tmp_path / "pets")


def reasoned(text: str) -> str:
    """What a good teacher writes: the candidates of the request in turn, with their marks, then the one asked for."""
    listed = re.findall(r"^(\d+)\. (.+?) at (\[[\d, ]+\]) \(known marks: (.+)\)$", text, re.MULTILINE)
    asked = int(re.search(r"The answer is number (\d+), ", text)[1]) - 1
    looked = " ".join(f"At {box} I see {marks}." for _, _, box, marks in listed)
    return f"{listed[asked][1]}: {listed[asked][3]}. {looked} So it is {listed[asked][2]}."


@pytest.mark.ci
def test_a_served_teacher_that_fails_now_and_then(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Failures are counted refusals, the rest is sound, and the same again costs nothing."""
    flags = ["--train", "8", "--validation", "0", "--test", "0", "--photos-per-entity", "3", "--domain", "bird"]
    (tmp_path / "teacher.yaml").write_text(f"model: m\ntries: 1\ncache: {tmp_path / 'replies'}\n")
    flags += ["--teacher", "openai", "--teacher-config", str(tmp_path / "teacher.yaml")]
    with serving(lambda number, _: {1: (500, {}), 4: "refuses"}.get(number), answer=reasoned) as server:
        at = ["--teacher-option", f"base_url={server.url}", "--teacher-option", "api_key=topsecret"]
        made = make(tmp_path / "data", *flags, *at, "--workers", "1")
        output = capfd.readouterr().err
        assert made["line-ups refused"] == {"teacher: server answered 500": 1, "teacher: unreadable reply": 1}
        assert "m: 9 answered in 10 calls, 0 cached" in output and "2 failed" in output
        assert "1 x server answered 500" in output and "no box in the reasoning" in output
        rows = load_samples(tmp_path / "data" / "train.jsonl")
        for row in rows:
            assert row.thought and thoughts.problem(row, row.thought) is None and "[" not in row.thought
        parts = server.requests[0]["messages"][0]["content"]
        assert [part["type"] for part in parts] == ["image_url", "text"]
        assert not any("topsecret" in file.read_text() for file in tmp_path.rglob("*.json*"))
        again = make(tmp_path / "again", *flags, *at, "--workers", "3", "--teacher-option", "tries=4")
    asked_again = len(server.requests) - 10
    assert asked_again <= 2, "only what failed, or a line-up that its failure had brought up"
    assert again["samples"]["train"]["samples"] == 8
