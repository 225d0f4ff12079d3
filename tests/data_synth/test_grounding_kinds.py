"""Grounding data with questions of every kind: by description, about what is absent, about several things."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest

from mllm.io.images import open_image
from mllm.pocket.species import find
from mllm.records import SPLITS
from mllm.synthesis import thoughts
from tests.support.killing import contents
from tests.support.synthesis import make, no_look_alikes_between_sides, samples

ROOT = Path(__file__).resolve().parents[2]
MIXED = ["--train", "36", "--validation", "12", "--test", "24", "--photos-per-entity", "6", "--domain", "bird"]
MIXED += ["--descriptions", "0.3", "--absent", "0.3", "--several", "0.2", "--questions", "2", "--sheet", "7"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set with questions by description, for what is absent, and for all of a kind."""
    out = tmp_path_factory.mktemp("mixed") / "data"
    make(out, *MIXED)
    return out


@pytest.mark.ci
def test_every_kind_of_question_is_sound(mixed: Path) -> None:
    cards = json.loads((mixed / "knowledge.json").read_text())
    kinds: dict[str, int] = defaultdict(int)
    for row in samples(mixed):
        kind = row.kind
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
            asked = row.asked
            assert row.question == f"Find the bird with marks {', '.join(asked)}." and row.entity not in row.thought
            assert [thing for thing in row.things if set(asked) <= set(thing.marks)] == [target]
        elif kind == "name":
            assert row.question == f"Find the bird {row.entity}."
    assert set(kinds) == {"name", "description", "absent", "several"} and min(kinds.values()) >= 3


def test_nothing_held_out_is_asked_for_or_shown_in_training(mixed: Path) -> None:
    """An absent thing is named in the question only: that, too, would teach a held-out name."""
    absent: dict[str, set[str]] = {side: set() for side in SPLITS}
    for row in samples(mixed):
        use = find(row.entity).use
        assert use in ("train", row.split) and row.seen == (use == "train")
        assert {find(thing.entity).use for thing in row.things} <= {"train", row.split}
        if row.kind == "absent":
            absent[row.split].add(use)
    assert absent["train"] == {"train"} and absent["test"]
    no_look_alikes_between_sides(mixed)


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
