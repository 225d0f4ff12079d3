"""fieldmark identify: a folder becomes a table; a broken image is listed, and a stopped run goes on."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from mllm.boxes import Frame
from mllm.cli.commands import identify
from mllm.cli.programs import parse
from mllm.errors import FieldmarkError
from mllm.knowledge import card_files
from mllm.knowledge.card_files import Card, Mark
from mllm.knowledge.cards import Cards, load_cards
from mllm.models import families
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.prompting import questions
from mllm.prompting.tasks import CompletionReader
from mllm.records import Sample

BIRDS = species("bird")[:4]
POCKET = families.load("pocket")
CARDS = [Card(one.name, "bird", tuple(map(Mark, one.marks)), genus=one.genus, synonyms=()) for one in BIRDS]
SAMPLE = Sample("a.png", "name", "a.png", Frame(96, 96), "bird", "", questions.naming("bird"), ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, one of them in a folder of its own, and one that is torn between them."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name, one in zip(("a.png", "more/c.png"), BIRDS, strict=False):
        world.photo(one, 0)[0].save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes()[:200])
    card_files.write(tmp_path / "cards.yaml", CARDS)
    return tmp_path


def row(text: str, sample: Sample = SAMPLE, cards: Cards | None = None) -> dict[str, str]:
    done = CompletionReader(POCKET, POCKET.budget).read(sample, text)
    return identify.named_row(sample, done, Cards({c.entity: c for c in CARDS}) if cards is None else cards, "0.5")


def test_a_folder_with_a_broken_image_becomes_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [str(folder / "photos"), "--cards", str(folder / "cards.yaml"), "--model", "pocket", "--closed"]
    flags += ["--out", str(folder / "out"), "--max-new-tokens", "24"]
    options = parse(identify.Options, flags)
    assert identify.command(options) == 1
    table = (folder / "out" / "names.csv").read_bytes()
    rows = list(csv.DictReader(table.decode().splitlines()))
    assert [one["image"] for one in rows] == ["a.png", "b.png", "more/c.png"] and tuple(rows[0]) == identify.COLUMNS
    broken = rows.pop(1)
    assert "b.png" in broken["problem"] and not any(broken[name] for name in identify.COLUMNS[1:-1])
    names = {one.name for one in BIRDS}
    for one in rows:
        assert one["name"] in names or (not one["name"] and one["problem"])
        assert not one["confidence"] or 0 < float(one["confidence"]) <= 1
    output = capsys.readouterr().out
    assert "of 3 images named" in output and "not opened: " in output and "b.png" in output
    (folder / "photos" / "b.png").unlink()
    outputs = folder / "out" / "outputs.jsonl"
    outputs.write_bytes(outputs.read_bytes().splitlines(keepends=True)[0])
    assert identify.command(options) == 0
    again = list(csv.DictReader((folder / "out" / "names.csv").read_text().splitlines()))
    assert again == rows, "the answer that was lost was asked for again"


def test_names_genera_and_marks_are_read_with_the_cards() -> None:
    first, second = BIRDS[0], BIRDS[1]
    look = f"marks: {', '.join(first.marks)}. {second.name}: green fits. So {first.name}."
    found = row(f"<think>{look}</think><answer>{first.name.upper()}</answer>")
    assert found["name"] == first.name and found["genus"] == first.genus and found["confidence"] == "0.5"
    assert found["marks"] == "; ".join(first.marks) and not found["problem"]
    genus = row(f"<answer>{first.genus}</answer>")
    assert not genus["name"] and genus["genus"] == first.genus and genus["problem"].startswith("no name of the cards")
    assert row(f"<answer>{first.name}, {second.name}</answer>")["problem"].startswith("several names")
    assert row("<answer></answer>")["problem"] == "empty answer"
    assert row("<answer>a\nwren</answer>", cards=Cards({}))["name"] == "a wren"
    odd = row("<answer>a <|im_end|></answer>", cards=Cards({}))
    assert not odd["name"] and "special token" in odd["problem"]
    names = tuple(one.name for one in BIRDS)
    closed = replace(SAMPLE, question=questions.naming("bird", names=names), options=names)
    assert row("<answer>B</answer>", closed)["name"] == second.name


def test_what_is_missing_is_said(folder: Path) -> None:
    def refused(*flags: str) -> str:
        with pytest.raises(FieldmarkError) as error:
            identify.command(parse(identify.Options, [*flags, "--out", str(folder / "out")]))
        return str(error.value)

    photos = str(folder / "photos")
    assert "no such folder" in refused(str(folder / "gone"))
    assert "--domain bird" in refused(photos) and "--cards" in refused(photos, "--domain", "bird", "--closed")
    assert "leave out --engine" in refused(photos, "--engine", "vllm")
    (folder / "empty").mkdir()
    assert "it is empty" in refused(str(folder / "empty"), "--domain", "bird")
    assert len(load_cards(folder / "cards.yaml")) == 4
