"""Making grounding data: what is written, that nothing leaks, that a killed run ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import psutil
import pytest
from PIL import Image

from mllm.boxes import Box, Frame, iou
from mllm.data.near_duplicates import HASH_BITS
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.models import families
from mllm.pocket import world
from mllm.records import REFERENCE, SPLITS, Photo, Sample, load_samples, read_jsonl
from mllm.synthesis import lineups, thoughts
from tests.support.faulty_server import serving
from tests.support.killing import contents, killed_and_whole
from tests.support.synthesis import make

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


def samples(out: Path) -> list[Sample]:
    return [sample for side in SPLITS for sample in load_samples(out / f"{side}.jsonl")]


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
        assert row.boxes == (target.box,) and target.marks == world.find(row.entity).marks
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
    shown: dict[str, set[str]] = defaultdict(set)
    photos: dict[str, set[str]] = defaultdict(set)
    for row in samples(pocket):
        shown[row.split] |= {thing.entity for thing in row.things}
        photos[row.split] |= set(row.provenance["photos"])
        assert row.seen == world.find(row.entity).seen
    use = {one.name: one.use for one in world.species("bird")}
    assert {use[name] for name in shown["train"]} == {"train"}
    assert {use[name] for name in shown["validation"]} <= {"train", "validation"}
    assert {use[name] for name in shown["test"]} <= {"train", "test"}
    assert not photos["train"] & (photos["validation"] | photos["test"]) and not photos["validation"] & photos["test"]
    _no_look_alikes_between_sides(pocket)


def _no_look_alikes_between_sides(out: Path) -> None:
    """Cut every composite up again and compare the tiles of different sides, by hash and by colour."""
    tiles: list[tuple[str, Any, Any]] = []
    for row in samples(out):
        image = open_image(out / row.image)
        for cell in row.provenance["cells"]:
            tile = image.crop(tuple(cell))
            small = np.asarray(tile.resize((8, 8), Image.Resampling.BOX)).astype(int)
            tiles.append((row.split, imagehash.phash(tile), small))
    compared = 0
    for number, (side, code, small) in enumerate(tiles):
        for other, other_code, other_small in tiles[number + 1 :]:
            if side != other:
                compared += 1
                # Composites are scaled and compressed, which moves hashes: two bits less than the split's rule.
                same = code - other_code <= HASH_BITS - 2 and np.abs(small - other_small).mean() <= 10
                assert not same, f"a {side} and a {other} composite show the same photo"
    assert compared > 100


def test_the_leak_test_finds_a_leak(pocket: Path, tmp_path: Path) -> None:
    rows = samples(pocket)
    for side in SPLITS:  # every side gets the training composites
        text = (pocket / "train.jsonl").read_text().replace('"split": "train"', f'"split": "{side}"')
        (tmp_path / f"{side}.jsonl").write_text(text)
    (tmp_path / "images").symlink_to(pocket / "images")
    assert rows
    with pytest.raises(AssertionError, match="show the same photo"):
        _no_look_alikes_between_sides(tmp_path)


def test_the_manifest_counts_what_was_made(pocket: Path) -> None:
    facts = json.loads((pocket / "manifest.json").read_text())
    assert {side: facts["samples"][side]["samples"] for side in SPLITS} == {"train": 30, "validation": 12, "test": 18}
    assert facts["samples"]["validation"]["stratum"] == {"seen": 6, "unseen": 6}
    assert facts["samples"]["train"]["domain"] == {"bird": 30}
    assert sum(facts["photos"].values()) == len(list(read_jsonl(pocket / "split.jsonl", Photo)))
    assert facts["settings"]["seed"] == 0 and set(facts["hashes"]) >= {"train.jsonl", "images", "knowledge.json"}
    assert list(facts["licences"]) == ["CC0-1.0 (drawn by Fieldmark)"]


def test_another_run_gives_the_same_bytes_whatever_the_threads_and_another_seed_others(
    pocket: Path, tmp_path: Path
) -> None:
    few = ["--train", "6", "--validation", "4", "--test", "4", "--photos-per-entity", "3", "--domain", "car"]
    one = make(tmp_path / "a", *few, "--workers", "1")
    assert one["hash"] == make(tmp_path / "b", *few, "--workers", "4")["hash"]
    assert one["hash"] != make(tmp_path / "c", *few, "--seed", "1")["hash"]
    assert one == make(tmp_path / "a", *few), "a whole folder is left as it is"


def test_a_folder_of_other_settings_is_not_touched(pocket: Path) -> None:
    with pytest.raises(FieldmarkError) as error:
        make(pocket, *SMALL, "--seed", "9")
    assert "made with seed = 0, now it is 9" in str(error.value)


def test_the_seed_decides_what_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[tuple[Any, ...]] = []
    draw = lineups.Pool.draw

    def recorded(self: lineups.Pool, *values: Any, **named: Any) -> lineups.LineUp:
        draws.extend(value.getstate() for value in [*values, *named.values()] if isinstance(value, random.Random))
        return draw(self, *values, **named)

    monkeypatch.setattr(lineups.Pool, "draw", recorded)
    few = ["--train", "3", "--validation", "0", "--test", "0", "--photos-per-entity", "3", "--domain", "bird"]
    found = []
    for run, seed in enumerate((0, 0, 1)):
        make(tmp_path / str(run), *few, "--seed", str(seed), "--workers", "1")
        found.append(list(draws))
        draws.clear()
    assert len(found[0]) >= 3 and found[0] == found[1]
    assert not set(found[0]) & set(found[2])


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
    _no_look_alikes_between_sides(tmp_path / "pets")


# Questions of every kind.

MIXED = ["--train", "36", "--validation", "12", "--test", "24", "--photos-per-entity", "6", "--domain", "bird"]
MIXED += ["--descriptions", "0.3", "--absent", "0.3", "--several", "0.2", "--questions", "2", "--sheet", "7"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set with questions by description, for what is absent, and for all of a kind."""
    out = tmp_path_factory.mktemp("mixed") / "data"
    make(out, *MIXED)
    return out


def test_every_kind_of_question_is_sound(mixed: Path) -> None:
    cards = json.loads((mixed / "knowledge.json").read_text())
    kinds: dict[str, int] = defaultdict(int)
    for row in samples(mixed):
        kind = row.provenance["kind"]
        kinds[kind] += 1
        there = [thing for thing in row.things if thing.entity == row.entity]
        assert row.thought is not None and thoughts.problem(row, row.thought, cards) is None
        assert row.boxes == tuple(thing.box for thing in there)
        assert row.task == ("ground_all" if kind == "several" else "ground")
        assert len(row.things) <= 6 and len(row.provenance["photos"]) == len(row.things)
        if kind == "absent":
            assert not there and row.thought.endswith("So none.") and row.entity in row.question
        elif kind == "several":
            assert 2 <= len(there) <= 3 and row.question == f"Find every bird {row.entity}."
        else:
            (target,) = there
        if kind == "description":
            asked = row.provenance["asked"]
            assert row.question == f"Find the bird with marks {', '.join(asked)}." and row.entity not in row.thought
            assert [thing for thing in row.things if set(asked) <= set(thing.marks)] == [target]
        elif kind == "name":
            assert row.question == f"Find the bird {row.entity}."
    assert set(kinds) == {"name", "description", "absent", "several"} and min(kinds.values()) >= 3


def test_nothing_held_out_is_asked_for_or_shown_in_training(mixed: Path) -> None:
    """An absent thing is named in the question only: that, too, would teach a held-out name."""
    absent: dict[str, set[str]] = {side: set() for side in SPLITS}
    for row in samples(mixed):
        use = world.find(row.entity).use
        assert use in ("train", row.split) and row.seen == (use == "train")
        assert {world.find(thing.entity).use for thing in row.things} <= {"train", row.split}
        if row.provenance["kind"] == "absent":
            absent[row.split].add(use)
    assert absent["train"] == {"train"} and absent["test"]
    _no_look_alikes_between_sides(mixed)


def test_the_data_card_and_the_sheets_tell_what_is_there(mixed: Path) -> None:
    card = " ".join((mixed / "README.md").read_text().split())
    facts = json.loads((mixed / "manifest.json").read_text())
    assert "| samples | 36 | 12 | 24 |" in card and "72 grounding samples" in card
    kinds = facts["samples"]["train"]["kind"]
    assert sum(kinds.values()) == 36 and f"| kind: absent | {kinds['absent']} |" in card
    refused = sum(facts["line-ups refused"].values())
    assert facts["line-ups tried"] == 18 + 6 + 12 + refused
    assert f"{facts['line-ups tried']} line-ups were tried, {refused} refused" in card
    flags = "--domain bird --train 36 --validation 12 --test 24 --questions 2 --photos-per-entity 6"
    assert f"python data_synth/grounding.py {flags} --descriptions 0.3 --absent 0.3 --several 0.2 --sheet 7" in card
    assert "CC0-1.0" in card and "numpy" in card and not (mixed / "attribution.csv").exists()
    sheets = sorted(path.name for path in (mixed / "sheets").iterdir())
    assert sheets == [f"{side}-0{page}.png" for side in ("test", "train", "validation") for page in (1, 2)]
    assert open_image(mixed / "sheets" / "train-01.png").size[0] == 3 * 480


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_write_the_bytes_of_one(mixed: Path, tmp_path: Path) -> None:
    """Through accelerate's launcher; then killed, and gone on with by one process."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    launch += [str(ROOT / "accelerate_configs" / "cpu_two_processes.yaml"), str(ROOT / "data_synth" / "grounding.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run([*launch, *MIXED, "--out", str(tmp_path / "two")], check=True, env=env, cwd=tmp_path)
    assert contents(mixed) == contents(tmp_path / "two")
    out = tmp_path / "killed"
    running = subprocess.Popen([*launch, *MIXED, "--out", str(out)], env=env, cwd=tmp_path, start_new_session=True)
    while running.poll() is None:
        if (out / "train.part-1.jsonl").exists() and (out / "train.part-1.jsonl").stat().st_size > 4000:
            for process in [*psutil.Process(running.pid).children(recursive=True), running]:
                process.kill()
        time.sleep(0.002)
    assert running.wait() == -signal.SIGKILL, "the run ended before the second process had written"
    time.sleep(1)
    make(out, *MIXED)
    assert contents(mixed) == contents(out)


def reasoned(text: str) -> str:
    """What a good teacher writes: the candidates of the request in turn, with their marks, then the one asked for."""
    listed = re.findall(r"^(\d+)\. (.+?) at (\[[\d, ]+\]) \(known marks: (.+)\)$", text, re.MULTILINE)
    asked = int(re.search(r"The answer is number (\d+), ", text)[1]) - 1
    looked = " ".join(f"At {box} I see {marks}." for _, _, box, marks in listed)
    return f"{listed[asked][1]}: {listed[asked][3]}. {looked} So it is {listed[asked][2]}."


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
