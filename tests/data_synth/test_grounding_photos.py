"""Grounding data of a user's own photos: faults are reported at once, the rest is attributed and boxed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mllm.boxes import Box, Frame, iou
from mllm.errors import FieldmarkError
from mllm.evaluation import knowledge_probe
from mllm.inference.assistant import question_for
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl
from mllm.knowledge import domains
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.records import Photo, load_samples
from mllm.synthesis import teachers
from tests.support.synthesis import make


def photos_csv(folder: Path, rows: str) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(12):
        world.photo(species("bird")[number], 0)[0].save(folder / f"{number}.png")
    (folder / "t.csv").write_text("image,entity,x1,y1,x2,y2\n" + rows)
    return folder / "t.csv"


GOOD = "".join(f"{number}.png,bird {number},5,5,90,90\n" for number in range(12))
BAD = [
    (GOOD + "99.png,bird 1,5,5,90,90\n", [], "t.csv:14: field image: no such image"),
    (GOOD + "1.png,bird 1,5,5,120,90\n", [], "t.csv:14: fields x1,y1,x2,y2: box (5.0, 5.0, 120.0, 90.0) leaves"),
    (GOOD + "1.png,bird 1,90,5,5,90\n", [], "t.csv:14: fields x1,y1,x2,y2: box (90.0, 5.0, 5.0, 90.0) is inverted"),
    (GOOD.replace("bird 7", "bird sevn"), [], "no card for 'bird sevn'"),
    (GOOD.replace("bird 7", "Bird_6"), [], "entity 'Bird 6' was spelled 'bird 6' before"),
    ("", [], "t.csv: the table has a header and no rows"),
    (GOOD, ["--domain", "birds"], "unknown domain 'birds'. Did you mean 'bird'?"),
    (GOOD, ["--teacher", "gpt"], "unknown teacher 'gpt'"),
    (GOOD, ["--source", "cvs"], "unknown source 'cvs'. Did you mean 'csv'?"),
    (GOOD, ["--min-things", "5", "--max-things", "3"], "--min-things 5 is above --max-things 3"),
    (GOOD, ["--min-box", "500"], "line-ups for image 0 were rejected, the last because: a box is too small"),
    (GOOD, ["--test-share", "0.9"], "leave no photo for training"),
    (GOOD, ["--knowledge", "none.json"], "none.json: no such file"),
]


@pytest.mark.parametrize(("rows", "flags", "message"), BAD, ids=[message[:50] for *_, message in BAD])
def test_bad_input_is_one_clear_error(tmp_path: Path, rows: str, flags: list[str], message: str) -> None:
    file = photos_csv(tmp_path / "in", rows)
    (tmp_path / "cards.json").write_text(json.dumps({f"bird {n}": [f"mark {n}"] for n in range(12)}))
    given = ["--source", "csv", "--input", str(file), "--domain", "bird", "--knowledge", str(tmp_path / "cards.json")]
    with pytest.raises(FieldmarkError) as error:
        make(tmp_path / "out", *given, "--train", "3", "--validation", "0", "--test", "0", *flags)
    assert message in str(error.value)
    assert not (tmp_path / "out" / "train.jsonl").exists()


def test_a_folder_of_strange_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dear")
    for flags in ([], ["--overwrite"]):
        with pytest.raises(FieldmarkError) as error:
            make(tmp_path, "--domain", "bird", *flags)
        assert "was not made by this program" in str(error.value)
    assert (tmp_path / "mine.txt").read_text() == "dear"


def test_a_mistake_put_right_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    file = photos_csv(tmp_path / "in", GOOD + "99.png,bird 1,5,5,90,90\n")
    (tmp_path / "cards.json").write_text(json.dumps({f"bird {n}": [f"mark {n}"] for n in range(12)}))
    given = ["--source", "csv", "--input", str(file), "--domain", "bird", "--knowledge", str(tmp_path / "cards.json")]
    counts = ["--train", "3", "--validation", "0", "--test", "0"]
    with pytest.raises(FieldmarkError):
        make(tmp_path / "out", *given, *counts)
    photos_csv(tmp_path / "in", GOOD)
    assert make(tmp_path / "out", *given, *counts)["hash"] == make(tmp_path / "new", *given, *counts)["hash"]


def test_a_truncated_photo_is_told_by_name(tmp_path: Path) -> None:
    file = photos_csv(tmp_path / "in", GOOD)
    whole = (tmp_path / "in" / "3.png").read_bytes()
    (tmp_path / "in" / "3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cards.json").write_text(json.dumps({f"bird {n}": [f"mark {n}"] for n in range(12)}))
    given = ["--source", "csv", "--input", str(file), "--domain", "bird", "--knowledge", str(tmp_path / "cards.json")]
    with pytest.raises(FieldmarkError) as error:
        make(tmp_path / "out", *given, "--train", "3")
    assert "3.png" in str(error.value)


def test_photos_of_the_user_are_attributed(tmp_path: Path) -> None:
    given = user_photos(tmp_path, GOOD)
    make(tmp_path / "out", *given, "--train", "3", "--validation", "0", "--test", "0", "--licence", "CC BY 4.0, me")
    table = (tmp_path / "out" / "attribution.csv").read_text().splitlines()
    assert table[0] == "photo,entity,domain,side,licence" and '"CC BY 4.0, me"' in table[1]
    assert "iNaturalist" in (tmp_path / "out" / "README.md").read_text()


def user_photos(folder: Path, rows: str) -> list[str]:
    file = photos_csv(folder / "in", rows)
    (folder / "cards.json").write_text(json.dumps({f"bird {n}": [f"mark {n}", f"part {n}"] for n in range(12)}))
    return ["--source", "csv", "--input", str(file), "--domain", "bird", "--knowledge", str(folder / "cards.json")]


@pytest.mark.parametrize(("domain", "name"), [("fungus", "fungus/fungi"), ("mine.yaml", "ant")])
def test_any_noun_words_the_questions_and_the_rows_say_it_to_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domain: str, name: str
) -> None:
    monkeypatch.setattr(domains, "_GIVEN", {})
    (tmp_path / "mine.yaml").write_text("noun: ant\nplural: ants\nquestions: ['Which antennae has the {entity}?']\n")
    flags = ["--domain", "fungus", "--plural", "fungi"] if domain == "fungus" else ["--domain", str(tmp_path / domain)]
    given = [*user_photos(tmp_path, GOOD), *flags, "--unseen-share", "0", "--sheet", "0"]
    facts = make(tmp_path / "out", *given, "--train", "12", "--validation", "0", "--test", "0")
    assert facts["samples"]["train"]["domain"] == {name: 12}
    monkeypatch.setattr(domains, "_GIVEN", {})  # another machine, without the file
    rows, noun = load_samples(tmp_path / "out" / "train.jsonl"), name.partition("/")[0]
    asked = " ".join(row.question for row in rows)
    assert f"the {noun} " in asked and (" these fungi" in asked or "antennae" in asked)
    quiz = knowledge_probe.choices(items := knowledge_probe.items(rows), knowledge_probe.by_domain(items), 0)
    assert quiz[0].question.startswith(f"Which {noun} is this?")
    assert question_for("bird 1", rows[0].domain) == f"Find the {noun} bird 1."
    assert "Photos of these domains" not in (tmp_path / "out" / "README.md").read_text()


def test_a_plural_needs_its_noun(tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match="--plural fungi: name the noun with --domain"):
        make(tmp_path / "out", "--source", "csv", "--plural", "fungi")


class Pointer:
    """Finds the drawn thing by its colours; of the birds 1, 2 and 3 it is of two minds, sees two, sees none."""

    def __init__(self) -> None:
        self.asked = 0

    def point(self, look: Any, entity: str, *, seed: int = 0) -> tuple[Box, ...]:
        self.asked += 1
        pixels = np.asarray(open_image(look.image)).astype(int)
        vivid = (pixels.max(-1) - pixels.min(-1) > 90) | (pixels.max(-1) < 60)
        rows, columns = np.where(vivid.any(1))[0], np.where(vivid.any(0))[0]
        box = Box.from_xyxy((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), Frame(96, 96))
        if entity == "bird 1" and seed % 2:
            return (Box(0, 0, 0.2, 0.2),)
        return {"bird 2": (box, box), "bird 3": ()}.get(entity, (box,))


def test_missing_boxes_are_pointed_at_where_two_opinions_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer, real = Pointer(), teachers.load
    monkeypatch.setattr(teachers, "load", lambda name, **more: pointer if name == "pointer" else real(name, **more))
    given = user_photos(tmp_path, "".join(f"{n}.png,bird {n},,,,\n" for n in range(11)) + "11.png,bird 11,5,5,90,90\n")
    counts = ["--train", "8", "--validation", "0", "--test", "0", "--unseen-share", "0", "--boxes-from", "pointer"]
    facts = make(tmp_path / "out", *given, *counts)
    left_out = {name: count for name, count in facts["photos left out"].items() if "looks like" not in name}
    assert left_out == {"two opinions disagree": 1, "more than one box was found": 1, "no box was found": 1}
    assert pointer.asked == 2 * 11
    rows = {photo.id: photo for photo in read_jsonl(tmp_path / "out" / "boxes.jsonl", Photo)}
    assert [photo.things[0].entity for photo in rows.values()] == [f"bird {n}" for n in range(12)]
    for n, photo in enumerate(rows.values()):
        true = world.photo(species("bird")[n], 0)[1]
        if n in (1, 2, 3):
            assert not photo.boxes
        elif n < 11:
            assert iou(photo.boxes[0], true) > 0.75 and photo.provenance["agreement"] == 1.0
            assert len(photo.fingerprint) == 2, "what the new box encloses is searched for, too"
    visible = {thing.entity for row in load_samples(tmp_path / "out" / "train.jsonl") for thing in row.things}
    assert not visible & {"bird 1", "bird 2", "bird 3"}
    assert make(tmp_path / "out", *given, *counts) == facts and pointer.asked == 2 * 11


def test_a_teacher_that_cannot_point_is_told(tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError) as error:
        make(tmp_path / "out", *user_photos(tmp_path, GOOD), "--boxes-from", "cards")
    assert "teacher 'cards' cannot point at boxes" in str(error.value)


def test_look_alikes_of_the_cards_stand_beside_each_other(tmp_path: Path) -> None:
    given = user_photos(tmp_path, GOOD)
    text = "".join(f"bird {n}:\n  marks: [mark {n}]\n  unlike: {{bird {n ^ 1}: []}}\n" for n in range(12))
    (tmp_path / "cards.yaml").write_text(text)
    given[-1] = str(tmp_path / "cards.yaml")
    few = ["--train", "12", "--validation", "0", "--test", "0", "--unseen-share", "0", "--sisters", "1"]
    make(tmp_path / "out", *given, *few, "--max-things", "2")
    for row in load_samples(tmp_path / "out" / "train.jsonl"):
        first, second = (int(thing.entity.split()[1]) for thing in row.things)
        assert first == second ^ 1
