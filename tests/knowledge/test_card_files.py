"""Card files: what is written is read back, and errors name file, card and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.knowledge import card_files
from mllm.knowledge.card_files import Card, KnowledgeError, Mark
from mllm.knowledge.cards import load_cards

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
COUNTS = st.integers(0, 5).flatmap(lambda looked: st.tuples(st.integers(0, looked), st.just(looked)))
MARKS = st.builds(
    lambda text, part, share, verified, counts: Mark(text, part, "who", share, verified, *counts),
    TEXT,
    st.sampled_from(["", "bill"]),
    st.none() | st.floats(0, 1),
    st.sampled_from([True, False, None]),
    COUNTS,
)
CARDS = st.builds(
    lambda name, marks, unlike: Card(name, "bird", tuple(marks), "who", {k: tuple(v) for k, v in unlike.items()}),
    TEXT,
    st.lists(MARKS, min_size=1, max_size=4),
    st.dictionaries(TEXT, st.lists(st.tuples(TEXT, TEXT | st.just("")), max_size=2), max_size=2),
)


@given(card=CARDS)
def test_what_is_written_is_read_back(card: Card, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("cards") / "bird.yaml"
    card_files.write(file, [card], "a heading\nof two lines")
    assert card_files.read(file) == {card.entity: card}


def test_files_are_sorted_and_a_mark_is_a_line(tmp_path: Path) -> None:
    cards = [Card(name, "bird", (Mark("a long, red bill", "bill", "x", 0.5, True, 3, 4),)) for name in ("wren", "crow")]
    card_files.write(tmp_path / "a.yaml", cards)
    lines = (tmp_path / "a.yaml").read_text().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["crow:", "wren:"]
    expected = "- {mark: 'a long, red bill', part: bill, source: x, confidence: 0.5, verified: true, seen: 3 of 4}"
    assert [line.strip() for line in lines].count(expected) == 2


def test_a_mark_not_seen_stays_in_the_file_and_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "wren:\n  marks:\n  - short tail\n  - {mark: red bill, verified: no, seen: 1 of 4}\n"
        "  - {mark: barred wings, verified: unverified}\n  unlike:\n    Wood_Lark:\n    - [short tail, long tail]\n"
        "wood lark: [long tail]\n"
    )
    cards = load_cards(tmp_path / "a.yaml")
    assert cards["wren"] == ("short tail", "barred wings")
    assert cards.card("Wren").marks[1] == Mark("red bill", verified=False, seen=1, looked=4)
    assert cards.confused_with("wren") == {"wood lark"} and cards.confused_with("WOOD LARK") == {"wren"}
    assert cards.differences("wren", "wood lark") == (("short tail", "long tail"),)
    assert cards.differences("wood lark", "wren") == (("long tail", "short tail"),)
    assert cards.differences("wren", "crow") == () and cards.confused_with("crow") == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: {marks: [x], beak: 1}", "a.yaml: card 'A': field beak: unknown field"),
        ("A: {marks: [{mark: x, colour: red}]}", "card 'A': field marks[0].colour: unknown field"),
        ("A: {marks: [{part: bill}]}", "card 'A': field marks[0].mark: is missing"),
        ("A: {marks: [{mark: x, confidence: 2}]}", "card 'A', mark 'x': field confidence: must be from 0 to 1, got 2"),
        (
            "A: {marks: [{mark: x, confidence: high}]}",
            "field marks[0].confidence: Input should be a valid number, got 'high'",
        ),
        ("A: {marks: [{mark: x, verified: 1}]}", "field marks[0].verified: Input should be a valid boolean, got 1"),
        (
            "A: {marks: [{mark: x, seen: most}]}",
            "field marks[0].seen: String should match pattern '^\\d+ of \\d+$', got 'most'",
        ),
        ("A: {marks: [{mark: x, seen: 6 of 5}]}", "field seen: must be from 0 to the 5 images"),
        ("A: {marks: [{mark: x, part: 3}]}", "card 'A': field marks[0].part: Input should be a valid string, got 3"),
        ("A: {marks: [x], unlike: [B]}", "card 'A': field unlike: Input should be a valid dictionary, got ['B']"),
        ("A: {marks: [x], unlike: {B: [[x]]}}", "card 'A': field unlike.B[0]: List should have at least 2 items"),
        ("A: {marks: [x], source: 7}", "card 'A': field source: Input should be a valid string, got 7"),
        ("A: {marks: [x], unlike: {B: [['', x]]}}", "card 'A': field unlike.B: the own mark must not be empty"),
        ("A: [x]\nB: [y]\nA: [z]", "a.yaml:3: broken YAML: key 'A' is given twice"),
    ],
)
def test_bad_cards_are_named_by_file_card_and_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(KnowledgeError) as error:
        card_files.read(tmp_path / "a.yaml")
    assert message in str(error.value)


def test_a_folder_is_all_cards_in_it(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/dog.yaml").write_text("pug: [flat face]\n")
    (tmp_path / "cards/cat.json").write_text('{"Sphynx": ["no hair"]}')
    (tmp_path / "cards/notes.txt").write_text("not a card")
    assert list(load_cards(tmp_path / "cards")) == ["Sphynx", "pug"]
    assert card_files.files_of([tmp_path / "cards/dog.yaml"]) == (str(tmp_path / "cards/dog.yaml"),)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KnowledgeError, match=r"empty: no knowledge cards in this folder"):
        load_cards(tmp_path / "empty")


@pytest.mark.parametrize("word", ["<|im_end|>", "<|image_pad|>", "\x07", "\x1b"])
@pytest.mark.parametrize(
    "card",
    [["WORD tail"], {"marks": ["a", {"mark": "b WORD"}]}, {"marks": ["a"], "unlike": {"robin": [["a", "WORD"]]}}],
)
def test_what_is_no_word_is_refused_in_marks(tmp_path: Path, word: str, card: object) -> None:
    file = tmp_path / "cards.json"
    file.write_text(json.dumps({"wren": card}).replace("WORD", json.dumps(word)[1:-1] + "x"))
    with pytest.raises(KnowledgeError, match=r"cards.json: card 'wren': field .*take it out"):
        card_files.read(file)
    file.write_text(json.dumps({f"wren{word}": ["a tail"]}))
    with pytest.raises(KnowledgeError, match="take it out"):
        card_files.read(file)


@pytest.mark.parametrize("merge", [True, False])
def test_yaml_bombs_are_refused_at_once(tmp_path: Path, merge: bool) -> None:
    lines = ["a0: &a0 {x: [tail]}" if merge else "a0: &a0 [tail]"]
    for level in range(1, 10):
        many = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {{<<: [{many}]}}" if merge else f"a{level}: &a{level} [{many}]")
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(KnowledgeError, match=r"bomb.yaml:5: broken YAML: more than 30 aliases"):
        card_files.read(tmp_path / "bomb.yaml")
    shared = "\n".join(f"bird {k}: {{source: *s, marks: [a tail]}}" for k in range(100))
    (tmp_path / "good.yaml").write_text(f"bird: {{source: &s Mine, marks: &m [a tail]}}\nwren: *m\n{shared}")
    assert len(card_files.read(tmp_path / "good.yaml")) == 102


def test_genus_and_synonyms_are_read(tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text("wren:\n  genus: Troglodytes\n  synonyms: [jenny wren]\n  marks: [a short tail]\n")
    card = card_files.read(file)["wren"]
    assert (card.genus, card.synonyms) == ("Troglodytes", ("jenny wren",))
    card_files.write(file, [card])
    assert card_files.read(file) == {"wren": card}
    file.write_text("wren:\n  synonyms: ['']\n  marks: [a short tail]\n")
    with pytest.raises(KnowledgeError, match="card 'wren'.*synonyms"):
        card_files.read(file)
    table = tmp_path / "cards.csv"
    table.write_text("entity,mark,genus\nwren,short tail,Troglodytes\nwren,barred wing,Troglodytes\n")
    assert card_files.read(table)["wren"].genus == "Troglodytes"
