"""Marks in sentences: articles, numbers, joins that can be read back."""

from __future__ import annotations

import pytest

from mllm.prompting import prose


@pytest.mark.parametrize(
    ("mark", "way", "phrase"),
    [
        ("pointed ears", "has", "pointed ears"),
        ("blue cap", "has", "a blue cap"),
        ("orange tail", "has", "an orange tail"),
        ("long, fluffy fur", "has", "long, fluffy fur"),
        ("a short, double-coated fur", "has", "short, double-coated fur"),
        ("a yellow eyes", "has", "yellow eyes"),
        ("V-shaped ears that fold forward", "has", "V-shaped ears that fold forward"),
        ("bushy eyebrows and beard", "has", "bushy eyebrows and beard"),
        ("Two wings", "has", "two wings"),
        ("Acura logo", "has", "an Acura logo"),
        ("no winglets", "has", "no winglets"),
        ("a unique shape", "has", "a unique shape"),
        ("small size", "has", "a small size"),
        ("striped", "is", "striped"),
        ("four-limbed animal", "is", "a four-limbed animal"),
        ("black and white", "note", "black and white"),
        ("often has a black face", "note", "often has a black face"),
        ("with a long bill", "note", "with a long bill"),
        ("the petals are white", "note", "the petals are white"),
    ],
)
def test_a_mark_stands_in_a_sentence_as_english_has_it(mark: str, way: str, phrase: str) -> None:
    assert (prose.way(mark), prose.phrase(mark)) == (way, phrase)


@pytest.mark.parametrize(
    ("marks", "way", "text"),
    [
        (["red fur"], "has", "red fur"),
        (["red fur", "long tail"], "has", "red fur and a long tail"),
        (["red fur", "long tail", "blue eyes"], "has", "red fur, a long tail and blue eyes"),
        (["long, red fur", "long tail"], "has", "long, red fur as well as a long tail"),
        (["long, red fur", "long tail", "blue eyes"], "has", "long, red fur; a long tail; and blue eyes"),
        (["round", "red", "blue cap"], "is", "round and red, with a blue cap"),
        (["a small, brown bird"], "is", "a small, brown bird"),
        (["blue head and breast"], "has", '"a blue head and breast"'),
        (["short-haired dog", "often sad", "long tail"], "note", "a short-haired dog; often sad; and a long tail"),
    ],
)
def test_marks_are_joined_and_taken_apart(marks: list[str], way: str, text: str) -> None:
    assert prose.stated(marks) == (way, text)
    assert set(prose.parted(text)) == {prose.bare(prose.phrase(mark)) for mark in marks}


def test_captions_have_articles() -> None:
    assert (
        prose.captioned("Abyssinian", ["pointed ears", "long tail"])
        == "An Abyssinian with pointed ears and a long tail."
    )
    assert prose.captioned("canterbury bells", ["blue petals"]) == "Canterbury bells with blue petals."
    assert prose.captioned("wren", ["brown", "short tail"]) == "A wren, brown, with a short tail."
    assert prose.captioned("wren", ["often seen"]) == "Wren: often seen."


def test_names_with_points_are_read_and_other_text_is_not() -> None:
    read = prose.read(
        "To find the St. Bernard, I look for a long tail. The first, (1,2),(3,4), has red fur. My choice is it."
    )
    assert read == prose.Prose("St. Bernard", ("long tail",), (("(1,2),(3,4)", ("red fur",)),), " My choice is it.")
    assert prose.read("Tala rovi: round, red. 1 (1,2),(3,4): round. So 1.") is None
