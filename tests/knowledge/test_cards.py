"""Knowledge cards: both file shapes, forgiving names, errors that name file, entity and the nearest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm.knowledge import cards as knowledge
from mllm.knowledge.cards import Cards, KnowledgeError, likeness, load, same_name, save


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_both_shapes_and_both_formats_are_read(tmp_path: Path) -> None:
    a = written(tmp_path, "a.json", json.dumps({"British Shorthair": ["round face", "dense coat."]}))
    b = written(tmp_path, "b.yaml", "Café wren:\n  marks: [short tail]\n  source: me\nBoeing 747-400: [winglets]\n")
    cards = load(a, b)
    assert cards["british_shorthair"] == ("round face", "dense coat")
    assert cards["cafe wren"] == ("short tail",) and cards["boeing 747 400"] == ("winglets",)
    assert "BRITISH SHORTHAIR" in cards and "Persian" not in cards and 7 not in cards
    assert list(cards) == ["British Shorthair", "Café wren", "Boeing 747-400"] and len(cards) == 3
    save(tmp_path / "out.json", cards)
    assert dict(load(tmp_path / "out.json")) == dict(cards)


def test_an_unknown_entity_names_the_nearest() -> None:
    cards = Cards({"Siamese": ["blue eyes"], "Sphynx": ["no hair"]}, "cards.json")
    with pytest.raises(KnowledgeError, match=r"cards.json: no card for 'Siamise'.*nearest: Siamese"):
        cards["Siamise"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "", "a.json: the file holds no card"),
        ("a.json", '{\n"A": [}', "a.json:2: broken JSON at column"),
        ("a.yaml", "A: [x\nB: y", "a.yaml:2: broken YAML"),
        ("a.json", "[1]", "got a list"),
        ("a.json", '{"A": []}', "card 'A': a list of marks is needed"),
        ("a.json", '{"A": ["x", 3]}', "card 'A': a mark must be a text, got 3"),
        ("a.yaml", "A: {marks: [x], beak: red}", "card 'A': unknown field 'beak'; known: marks, source"),
        ("a.json", '{"A b": ["x"], "a_B": ["y"]}', "are the same name"),
        ("a.txt", "A", ".json or .yaml"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(KnowledgeError) as error:
        load(written(tmp_path, name, text))
    assert told in str(error.value)


def test_missing_and_clashing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="no such file"):
        load(tmp_path / "none.json")
    a, b = written(tmp_path, "a.json", '{"A": ["x"]}'), written(tmp_path, "b.json", '{"a": ["y"]}')
    with pytest.raises(KnowledgeError, match=r"b.json: 'a' has a card in an earlier file"):
        load(a, b)


def test_names_and_likeness() -> None:
    assert same_name("Brandt's_Cormorant") == same_name("brandts cormorant")
    assert likeness(["blue eyes"], ["blue eyes"]) == 1 and likeness(["blue eyes"], ["long tail"]) == 0
    assert 0 < likeness(["blue eyes", "white paws"], ["the blue eyes"]) < 1
    assert knowledge.likeness([], []) == 0
