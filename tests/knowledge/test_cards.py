"""Knowledge cards: both file shapes, forgiving names, errors that name file, entity and the nearest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllm.knowledge.card_files import Card, Mark
from mllm.knowledge.cards import (
    PARTS,
    Cards,
    KnowledgeError,
    load_cards,
    normalize_name,
    part_of,
    save_cards,
    word_overlap,
)


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_both_shapes_and_both_formats_are_read(tmp_path: Path) -> None:
    a = written(tmp_path, "a.json", json.dumps({"British Shorthair": ["round face", "dense coat."]}))
    b = written(tmp_path, "b.yaml", "Café wren:\n  marks: [short tail]\n  source: me\nBoeing 747-400: [winglets]\n")
    cards = load_cards(a, b)
    assert cards["british_shorthair"] == ("round face", "dense coat")
    assert cards["cafe wren"] == ("short tail",) and cards["boeing 747 400"] == ("winglets",)
    assert "BRITISH SHORTHAIR" in cards and "Persian" not in cards and 7 not in cards
    assert list(cards) == ["British Shorthair", "Café wren", "Boeing 747-400"] and len(cards) == 3
    save_cards(tmp_path / "out.json", cards)
    assert dict(load_cards(tmp_path / "out.json")) == dict(cards)


def test_an_unknown_entity_names_the_nearest() -> None:
    cards = Cards({"Siamese": ["blue eyes"], "Sphynx": ["no hair"]}, "cards.json")
    with pytest.raises(KnowledgeError, match=r"cards.json: no card for 'Siamise'.*nearest: Siamese"):
        cards["Siamise"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "", "a.json: the file holds no card"),
        ("a.json", '{\n"A": [}', "a.json:2: broken JSON at column"),
        ("a.yaml", "A: [x\nB: y", "a.yaml:2: broken YAML"),
        ("a.json", "[1]", "got a list"),
        ("a.json", '{"A": []}', "field marks: no mark is written yet of 1 entities: 'A'; write"),
        ("a.json", '{"A": ["x", 3]}', "card 'A': field marks[1].mark: Input should be a valid string, got 3"),
        ("a.yaml", "A: {marks: [x], beak: red}", "card 'A': field beak: unknown field"),
        ("a.json", '{"A b": ["x"], "a_B": ["y"]}', "are the same name"),
        ("a.txt", "A", ".json, .yaml or .csv"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(KnowledgeError) as error:
        load_cards(written(tmp_path, name, text))
    assert message in str(error.value)


def test_missing_and_clashing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="no such file"):
        load_cards(tmp_path / "none.json")
    a, b = written(tmp_path, "a.json", '{"A": ["x"]}'), written(tmp_path, "b.json", '{"a": ["y"]}')
    with pytest.raises(KnowledgeError, match=r"b.json: 'a' has a card in an earlier file"):
        load_cards(a, b)


def test_names_and_likeness() -> None:
    assert normalize_name("Brandt's_Cormorant") == normalize_name("brandts cormorant")
    assert word_overlap(["blue eyes"], ["blue eyes"]) == 1 and word_overlap(["blue eyes"], ["long tail"]) == 0
    assert 0 < word_overlap(["blue eyes", "white paws"], ["the blue eyes"]) < 1
    assert word_overlap([], []) == 0


def test_every_part_is_its_own_and_plurals_are_too() -> None:
    for part in PARTS:
        assert part_of(f"a red {part}") == part
        assert part_of(f"two {part}s") in PARTS


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("Black-footed Albatross", "001.Black_footed_Albatross"),
        ("Chihuahua", "n02085620-Chihuahua"),
        ("american pit bull terrier", "American_Pit_Bull"),
        ("American pit bull terrier", "american-pitbull-terrier"),
        ("Siamese", "siamese cats"),
        ("canterbury bells", "Canterbury bell"),
        ("french fries", "French fry"),
        ("crème brûlée", "creme_brulee"),
        ("MD-11", "MD11"),
        ("001.Brown Bears", "brown bear"),
    ],
)
def test_a_name_is_found_however_it_is_written(known: str, asked: str) -> None:
    cards = Cards({known: ["a mark"], "another": ["b"]})
    assert cards[asked] == ("a mark",) and asked in cards and cards.same(asked) == cards.same(known)
    turned = Cards({asked: ["a mark"], "another": ["b"]})
    assert turned[known] == ("a mark",)


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("English toy terrier", "English toy spaniel"),
        ("sparrow hawk", "sparrow"),
        ("747-SP", "737-SP"),
        ("Boeing 747-400", "Boeing 747"),
        ("BMW 1 Series", "BMW 3 Series"),
        ("pines", "pin"),
        ("glass frog", "gla frog"),
    ],
)
def test_another_name_is_not_taken_for_it(known: str, asked: str) -> None:
    cards = Cards({known: ["a mark"]})
    assert asked not in cards and cards.same(asked) != cards.same(known)


def test_a_name_that_could_be_two_is_an_error_that_names_both_and_an_exact_one_is_not() -> None:
    cards = Cards({"Boston terrier": ["x"], "Boston spaniel": ["y"], "pit bull": ["z"], "pitbull": ["w"]}, "c.yaml")
    with pytest.raises(KnowledgeError, match=r"c.yaml: 'Boston' could be 'Boston terrier' or 'Boston spaniel'; write"):
        cards["Boston"]
    with pytest.raises(KnowledgeError, match="'pit bull' or 'pitbull'"):
        cards["pit bulls"]
    assert cards["pit_bull"] == ("z",) and cards["Boston Terrier"] == ("x",)


def test_look_alikes_are_found_by_tolerant_names() -> None:
    own = Card("Siamese", marks=(Mark("blue eyes"),), unlike={"Birman cat": (("blue eyes", "white paws"),)})
    cards = Cards({"Siamese": own, "Birman": ["white paws"]})
    assert cards.confused_with("Siamese cat") == {"birman"}
    assert cards.differences("Birman", "001.Siamese") == (("white paws", "blue eyes"),)


def test_class_names_of_published_sets_find_their_descriptors(shared_data: Path) -> None:
    folder = shared_data / "fg_knowledge"
    birds = load_cards(folder / "descriptors" / "descriptors_cub.json")
    names = (folder / "gist" / "CUB_classes.txt").read_text().strip().split("\n")
    assert len(names) == len({birds.key(name) for name in names} - {None}) == 200
    folders = [f"{number:03d}.{name.replace(' ', '_').replace('-', '_')}" for number, name in enumerate(birds, 1)]
    assert [birds[folder] for folder in folders] == [birds[name] for name in birds]
