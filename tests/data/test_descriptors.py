"""Published descriptor files and tables become cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm.data import descriptors
from mllm.errors import FieldmarkError
from mllm.knowledge.card_files import Card, KnowledgeError, Mark
from mllm.knowledge.cards import part_of


def test_a_list_of_marks_gets_parts_and_a_source(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps({"Crow\n": ["long, black bill", "noisy"]}))
    (card,) = descriptors.load(tmp_path / "d.json").values()
    assert card.entity == "Crow" and card.source == "d.json"
    assert card.marks == (Mark("long, black bill", "bill", "d.json"), Mark("noisy", "", "d.json"))


def test_captions_are_taken_apart(tmp_path: Path) -> None:
    caption = "The crow has black plumage all over its large body, with a long bill, and it has strong feet."
    (tmp_path / "d.json").write_text(json.dumps({"crow": [caption]}))
    marks = descriptors.load(tmp_path / "d.json")["crow"].marks
    assert [mark.text for mark in marks] == [
        "The crow has black plumage all over its large body",
        "with a long bill",
        "it has strong feet",
    ]
    assert [mark.part for mark in marks] == ["body", "bill", "foot"]


def test_what_was_said_of_images_is_counted(tmp_path: Path) -> None:
    marks_of_images = {"pug_0": ["Short", "curly tail"], "pug_1": ["short"], "great dane_0": ["tall"]}
    (tmp_path / "d.json").write_text(json.dumps(marks_of_images))
    cards = descriptors.load(tmp_path / "d.json")
    assert [(m.text, m.confidence) for m in cards["pug"].marks] == [("short", 1.0), ("curly tail", 0.5)]
    assert list(cards) == ["pug", "great dane"]


def test_a_table_has_a_mark_a_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("entity,mark,part,confidence\nwren,short tail,,0.9\nWren,barred,wing,\n")
    (card,) = descriptors.load(tmp_path / "t.csv").values()
    assert card.marks == (Mark("short tail", "tail", "t.csv", 0.9), Mark("barred", "wing", "t.csv"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "entity,mark,confidence\nwren,x,often\n", "t.csv:2: field confidence: 'often' is not a number"),
        ("t.csv", "entity,mark,confidence\nwren,x,7\n", "t.csv:2: field confidence: must be from 0 to 1"),
        (
            "t.csv",
            "entity,mark\nwren,\n",
            "t.csv:2: field marks: no mark is written yet of 1 entities: 'wren' (line 2)",
        ),
        ("t.csv", "entity,marks\nwren,x\n", "unknown column 'marks'. Did you mean 'mark'"),
        ("t.json", '{"pug_0": "short"}', "t.json: card 'pug_0': a list of texts is needed"),
        ("t.json", "{", "t.json:1: broken JSON"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FieldmarkError) as error:
        descriptors.load(tmp_path / name)
    assert message in str(error.value)


def test_sources_are_joined_and_agreement_becomes_confidence() -> None:
    a = Card("wren", marks=(Mark("short tail", source="a"), Mark("barred wings", source="a")), source="a")
    b = Card("wren", marks=(Mark("a short tail", source="b"), Mark("loud", source="b")), source="b")
    card = descriptors.merge("wren", "bird", [a, b])
    assert [(m.text, m.source, m.confidence) for m in card.marks] == [
        ("short tail", "a", 1.0),
        ("barred wings", "a", 0.5),
        ("loud", "b", 0.5),
    ]
    assert card.domain == "bird" and card.source == "a, b"
    assert descriptors.merge("wren", "bird", [a]).marks[0].confidence is None


def test_every_published_file_is_read(shared_data: Path) -> None:
    folder = shared_data / "fg_knowledge"
    wanted = {"descriptors/descriptors_cub.json": 200, "descriptors/descriptors_pets.json": 37}
    wanted |= {"gist/CUB_long_captions.json": 200, "finer/pet37/pet_attributes_pairs_1.json": 37}
    for name, count in wanted.items():
        cards = descriptors.load(folder / name)
        assert len(cards) == count and all(card.used for card in cards.values()), name


def test_an_unknown_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"none.json: no such file"):
        descriptors.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("mark", "part"),
    [
        ("a long, hooked bill", "bill"),
        ("black feet with white claws", "foot"),
        ("a red spot on the bill", "bill"),
        ("two under-wing mounted engines", "engine"),
        ("leaves in pairs", "leaf"),
        ("blue cap", "cap"),
        ("round", ""),
    ],
)
def test_the_part_is_read_off_the_words(mark: str, part: str) -> None:
    assert part_of(mark) == part


@pytest.mark.parametrize("bad", ["red\x07tail", "\x1b[31mred", "<|im_end|> tail"])
def test_marks_that_are_no_words_are_refused_in_every_form(tmp_path: Path, bad: str) -> None:
    csv, images, cards = tmp_path / "m.csv", tmp_path / "images.json", tmp_path / "cards.json"
    csv.write_text(f"entity,mark,part\nwren,long,tail\nwren,{bad},tail\n")
    images.write_text(json.dumps({"wren_0": ["long"], "wren_1": [bad]}))
    cards.write_text(json.dumps({"wren": {"marks": ["long", {"mark": "short", "part": bad}]}}))
    for file, place in ((csv, "m.csv:3: field mark"), (images, "card 'wren_1'"), (cards, "card 'wren': field marks")):
        with pytest.raises(KnowledgeError, match=rf"{place}: .* (control character|special token).*take it out"):
            descriptors.load(file)
    csv.write_text(f"entity,mark\n{bad},long\n")
    with pytest.raises(KnowledgeError, match="m.csv:2: field entity: .*take it out"):
        descriptors.load(csv)
