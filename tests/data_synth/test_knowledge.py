"""Making cards: from a teacher, from files, from a table; looked for in images; killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_synth import knowledge as program
from mllm.errors import FieldmarkError
from mllm.knowledge.card_files import Mark
from mllm.knowledge.cards import load_cards
from mllm.pocket.species import find, species
from mllm.synthesis import teachers
from mllm.synthesis.capabilities import Look
from tests.support.faulty_server import serving

ROOT = Path(__file__).resolve().parents[2]
BIRDS = ["--domain", "bird", "--photos-per-entity", "3"]


def make(out: Path, *flags: str) -> dict[str, Any]:
    program.main([*flags, "--out", str(out)])
    return json.loads((out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("birds") / "knowledge"
    make(out, *BIRDS)
    return out


def test_the_oracle_knows_sees_and_tells_apart(birds: Path) -> None:
    facts = json.loads((birds / "manifest.json").read_text())
    assert facts["cards"] == {"bird": 30} and facts["marks"] == {"verified": 120}
    cards = load_cards(birds / "cards" / "bird.yaml")
    for one in species("bird"):
        assert cards[one.name] == one.marks
        alike = cards.card(one.name).unlike
        assert len(alike) >= 3, "three look-alikes, and those that name it"
        for other, pairs in alike.items():
            assert find(other).domain == "bird" and find(other).look.differing(one.look) == len(pairs)
            for own, its in pairs:
                assert own in one.marks and its in find(other).marks
    assert cards.card(species("bird")[0].name).marks[3].part == "cap"


def test_another_run_gives_the_same_bytes_and_what_is_whole_is_left_alone(birds: Path, tmp_path: Path) -> None:
    again = make(tmp_path / "again", *BIRDS, "--workers", "4")
    assert again["hash"] == json.loads((birds / "manifest.json").read_text())["hash"] == make(birds, *BIRDS)["hash"]


class Doubter:
    """Sees `round` in every image but one of three, `red` in one of three; cannot tell anything else."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def sees(self, look: Look, marks: Sequence[str]) -> tuple[bool | None, ...]:
        turn = int(look.image.stem.rpartition("-")[2])
        assert look.box is not None and turn < 3
        return tuple({"round": turn > 0, "red": turn == 0}.get(mark) for mark in marks)

    def describe(self, look: Look, *, seed: int = 0) -> str:
        return ""


def test_marks_not_seen_in_most_images_are_dropped_and_unlabelled_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = teachers.load
    monkeypatch.setattr(teachers, "load", lambda name: Doubter() if name == "doubter" else real(name))
    names = [one.name for one in species("bird")]
    (tmp_path / "d.json").write_text(json.dumps({name: ["round", "red", "a wattle", "a song"] for name in names}))
    flags = ["--source", "pocket", *BIRDS, "--given", str(tmp_path / "d.json"), "--eyes", "doubter"]
    facts = make(tmp_path / "out", *flags)
    # Twenty species have three images; of the ten unseen ones there are two, and one of two is not most.
    assert facts["marks"] == {"verified": 20, "dropped: not seen in most images": 40, "unverified": 30}
    assert facts["marks not visible"] == 30, "no eye was asked for a song"
    cards = load_cards(tmp_path / "out" / "cards" / "bird.yaml")
    trained = next(one.name for one in species("bird") if one.use == "train")
    assert cards[trained] == ("round", "a wattle")
    assert cards.card(trained).marks[:2] == (
        Mark("round", "", "d.json", None, True, 2, 3),
        Mark("red", "", "d.json", None, False, 1, 3),
    )


def test_a_table_without_images_is_unverified_and_paired_by_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "entity,mark,domain\nblack redstart,orange tail,bird\nblack redstart,sooty breast,bird\n"
        "common redstart,orange tail,bird\ncommon redstart,orange breast,bird\nwren,barred wings,bird\n"
    )
    facts = make(tmp_path / "out", "--given", str(tmp_path / "t.csv"), "--alike", "1")
    assert facts["marks"] == {"unverified": 5} and facts["pairs"] == 1
    cards = load_cards(tmp_path / "out" / "cards" / "bird.yaml")
    assert cards.differences("black redstart", "common redstart") == (("sooty breast", "orange breast"),)
    assert cards.confused_with("wren") == frozenset()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--given", "{csv}"], "no domain is given for 'wren': name one with --domain"),
        (["--given", "{csv}", "--domain", "birds"], "unknown domain 'birds'. Did you mean 'bird'"),
        (["--given", "{csv}", "--domain", "bird", "--eyes", "pocket"], "--eyes needs images to look at"),
        (
            ["--source", "pocket", *BIRDS, "--teacher", "pocket", "--eyes", "cards"],
            "'cards' cannot look at images",
        ),
        (["--source", "pocket", *BIRDS, "--given", "{csv}"], "nothing that a photo can show is known of"),
        (["--source", "pocket", *BIRDS, "--teacher", "pocket", "--embeddings", "none.jsonl"], "no such file of embedd"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, flags: list[str], message: str) -> None:
    (tmp_path / "t.csv").write_text("entity,mark\nwren,short tail\n")
    with pytest.raises(FieldmarkError) as error:
        make(tmp_path / "out", *(flag.replace("{csv}", str(tmp_path / "t.csv")) for flag in flags))
    assert message in str(error.value)


def test_every_kind_that_nothing_is_known_of_is_named_at_once_with_a_file_to_describe_them_in(tmp_path: Path) -> None:
    """Once they are described in that file, the same command goes through."""
    (tmp_path / "t.csv").write_text(f"entity,mark\n{species('bird')[0].name},a wattle\n")
    flags = ["--source", "pocket", *BIRDS, "--given", str(tmp_path / "t.csv")]
    with pytest.raises(FieldmarkError, match="known of 29 entities") as error:
        make(tmp_path / "out", *flags)
    assert all(one.name in str(error.value) for one in species("bird")[1:])
    file = tmp_path / "out_missing.yaml"
    table = file.with_suffix(".csv")
    assert table.read_text(encoding="utf-8").count("\n") == 1 + 29 * 4
    for one in (file, table):
        with pytest.raises(FieldmarkError, match=rf"{one.name}:[0-9]+: field marks: no mark is written yet of 29"):
            load_cards(one)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# ") and text.count("marks: []") == 29
    file.write_text(text.replace("marks: []", "marks: [round body]"), encoding="utf-8")
    assert make(tmp_path / "out", *flags, "--given", str(file), "--overwrite")["cards"] == {"bird": 30}


def test_what_no_photo_shows_is_listed_and_a_kind_of_which_nothing_else_is_known_is_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("entity,mark\nwren,loud song\nwren,short tail\nrobin,friendly temperament\n")
    flags = ["--given", str(tmp_path / "t.csv"), "--domain", "bird"]
    with pytest.raises(FieldmarkError, match="a photo can show is known of 1 entities: robin") as error:
        make(tmp_path / "out", *flags)
    listed = (tmp_path / "out" / "not_visible.csv").read_text().split("\n")
    assert listed[1:] == ["robin,friendly temperament,temper or behaviour,t.csv", "wren,loud song,sound,t.csv", ""]
    with pytest.raises(FieldmarkError, match="out_missing2.yaml"):  # marks may be in the first one
        make(tmp_path / "out", *flags, "--overwrite")
    assert "out_missing.yaml" in str(error.value)
    given = tmp_path / "out_missing.csv"
    given.write_text(given.read_text().replace("robin,bird,", "robin,bird,red breast", 1))
    facts = make(tmp_path / "out", *flags, "--given", str(given), "--overwrite")
    assert facts["marks not visible"] == 2 and facts["marks"] == {"unverified": 2}


def test_names_of_photos_find_the_marks_of_a_published_list(tmp_path: Path) -> None:
    names = [one.name for one in species("bird")]
    written = {f"{number:03d}.{name.upper().replace(' ', '_')}_birds": ["round"] for number, name in enumerate(names)}
    (tmp_path / "d.json").write_text(json.dumps(written | {"an empty one": []}))
    assert make(tmp_path / "out", "--source", "pocket", *BIRDS, "--given", str(tmp_path / "d.json"))["marks"] == {
        "unverified": 30
    }
    assert set(load_cards(tmp_path / "out" / "cards" / "bird.yaml")) == set(names)


@pytest.mark.ci
def test_real_pets(shared_data: Path, tmp_path: Path) -> None:
    given = shared_data / "fg_knowledge" / "descriptors" / "descriptors_pets.json"
    flags = ["--source", "oxford_pets", "--input", str(shared_data / "oxford_pets_sample"), "--given", str(given)]
    facts = make(tmp_path / "out", *flags)
    assert facts["cards"] == {"cat": 12, "dog": 25} and list(facts["marks"]) == ["unverified"]
    cards = load_cards(*sorted((tmp_path / "out" / "cards").iterdir()))
    assert len(cards) == 37 and all(cards.confused_with(name) for name in cards)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_ends_with_the_same_bytes(birds: Path, tmp_path: Path) -> None:
    """kill -9 in every stage, then run again until it ends."""
    command = [sys.executable, str(ROOT / "data_synth" / "knowledge.py"), *BIRDS, "--out", str(tmp_path / "killed")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("photos.part.jsonl", "marks.part.jsonl", "checked.part.jsonl", "pairs.part.jsonl"):
        running = subprocess.Popen(command, env=env, cwd=tmp_path)
        while running.poll() is None:
            log = tmp_path / "killed" / name
            if log.exists() and log.stat().st_size > 1500:
                running.send_signal(signal.SIGKILL)
            time.sleep(0.0005)
        assert running.wait() == -signal.SIGKILL, f"the run ended before {name} had grown"
    subprocess.run(command, check=True, env=env, cwd=tmp_path)
    for file in ("cards/bird.yaml", "marks.jsonl", "checked.jsonl", "pairs.jsonl", "manifest.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (birds / file).read_bytes(), file


def known(text: str) -> str:
    """What a teacher that knows little says: two marks, and one difference as `this | that`."""
    return "round body | tall body" if "|" in text else "- round body\n- red cap"


def test_a_served_teacher_is_set_up_by_options_and_its_costs_are_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.json").write_text(json.dumps({"Tala rovi": ["a wattle"], "Tala runo": ["a wattle"]}))
    flags = ["--given", str(tmp_path / "names.json"), "--domain", "bird", "--teacher", "openai", "--alike", "1"]
    with serving(lambda number, _: {1: (500, {})}.get(number), answer=known) as server:
        flags += ["--teacher-option", f"base_url={server.url}", "--teacher-option", f"cache={tmp_path / 'replies'}"]
        flags += ["--teacher-option", "api_key=topsecret", "--teacher-option", "model=m"]
        at_once = [*flags, "--teacher-option", "tries=1", "--workers", "1"]
        with pytest.raises(FieldmarkError):
            make(tmp_path / "out", *at_once)
        output = capfd.readouterr().err
        assert "1 failed" in output and "server answered 500" in output, "a run that ends early tells what it paid, too"
        made = make(tmp_path / "out", *flags, "--workers", "1")
        output = capfd.readouterr().err
    assert made["cards"] == {"bird": 2} and made["pairs"] == 1
    assert "m: 2 answered in 2 calls" in output and ", 0 failed" in output, (
        "the first card was kept, not asked for again"
    )
    assert "topsecret" not in (tmp_path / "out" / "settings.json").read_text()
    cards = load_cards(tmp_path / "out" / "cards" / "bird.yaml")
    assert cards["Tala rovi"] == ("a wattle", "round body", "red cap")
    assert cards.card("Tala rovi").unlike["Tala runo"] == (("round body", "tall body"),)
