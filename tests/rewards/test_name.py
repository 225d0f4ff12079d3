"""The reward `name` against grades made by hand, and against the benchmark's own function."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mllm import rewards
from mllm.boxes import Box, Frame
from mllm.errors import ConfigError, RecordError
from mllm.models import families
from mllm.models.families import Convention
from mllm.prompting import conversations, questions
from mllm.prompting.tasks import CompletionReader, score_of, task_of
from mllm.prompting.tasks.name import has_genus
from mllm.records import Sample, Score, Thing
from mllm.rewards import format as form

POCKET = families.load("pocket")
READER = CompletionReader(POCKET, POCKET.budget)
SAMPLE = Sample(
    "s", "name", "a.png", Frame(96, 96), "bird", "Black-crowned Talo", "What species of bird is this?", (),
    options=("Black-crowned Talo", "Talo mer", "Talo mer minor", "Kite"), genus="Talo", synonyms=("Talo ruvi",),
    thought="Here I see: a red cap. So Black-crowned Talo.",
)  # fmt: skip
LETTERED = replace(SAMPLE, question=questions.naming("bird", names=SAMPLE.options))


def scored(answer: str, sample: Sample = SAMPLE, **config: float) -> Score:
    done = READER.read(sample, answer if "<" in answer or not answer else f"<think>x</think><answer>{answer}</answer>")
    (score,) = rewards.load("name", **config)([sample], [done])
    if not config:
        assert score.value == score_of(sample, done.answer), "reward and benchmark call one function"
    assert task_of(sample).is_right(done.answer, sample) == (score.value == 1)
    return score


@pytest.mark.parametrize(
    ("answer", "value", "grade"),
    [
        ("Black-crowned Talo", 1, "species"),
        ("BLACK CROWNED TALO.", 1, "species"),
        ("black_crowned talo", 1, "species"),
        ("Talo ruvi", 1, "species"),
        ("It is a black-crowned Talo (Talo ruvi), by its red cap.", 1, "species"),
        ("Black-crowned Talo, not a kite", 1, "species"),
        ("Talo", 0.5, "genus"),
        ("This looks like a bird of the genus Talo.", 0.5, "genus"),
        ("Talo sp.", 0.5, "genus"),
        ("Talo mer", 0, "wrong"),
        ("Talo unheard", 0, "wrong"),
        ("Not a Talo", 0, "wrong"),
        ("not a black-crowned Talo", 0, "wrong"),
        ("It does not look like a Talo ruvi", 0, "wrong"),
        ("Taloruvi", 0, "wrong"),
        ("bird", 0, "wrong"),
        ("none", 0, "wrong"),
        ("(10,10),(20,20)", 0, "wrong"),
        ("Black-crowned Talo, Talo mer", 0, "several"),
        ("Kite or black-crowned Talo", 0, "several"),
        ("a black-crowned Talo or something like it", 0, "several"),
        ("either a Talo ruvi, I think", 0, "several"),
        ("", 0, "unread"),
        ("<answer> </answer>", 0, "unread"),
        ("<answer>...</answer>", 0, "unread"),
        ("<think>Talo ruvi", 0, "unread"),
        ("<think>Talo ruvi</think>", 0, "unread"),
        ("<answer>Talo ruvi", 0, "unread"),
        ("<answer>Talo ruvi</answer><answer>Talo ruvi</answer>", 0, "unread"),
    ],
)
def test_grades_by_hand(answer: str, value: float, grade: str) -> None:
    score = scored(answer)
    assert score.value == value and score.parts[grade] == 1 == sum(score.parts.values())


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ("A", "species"), ("(A)", "species"), ("A. Black-crowned Talo", "species"), ("black-crowned talo", "species"),
        ("B", "wrong"), ("Talo mer", "wrong"), ("Talo", "genus"), ("E.", "unread"), ("A wren", "unread"),
        ("Talo mer, Kite", "several"),
    ],
)  # fmt: skip
def test_a_list_with_letters(answer: str, grade: str) -> None:
    assert scored(answer, LETTERED).parts[grade] == 1


def test_text_without_tags_is_the_answer_and_the_longer_name_counts() -> None:
    assert score_of(SAMPLE, READER.read(SAMPLE, "a Talo ruvi").answer) == 1
    minor = replace(SAMPLE, entity="Talo mer", synonyms=())
    assert scored("Talo mer", minor).value == 1 and scored("Talo mer minor", minor).value == 0


def test_the_part_for_the_genus_is_set_and_checked() -> None:
    assert scored("Talo", genus=0.2).value == 0.2 and scored("Talo ruvi", genus=0.2).value == 1
    assert scored("Talo", replace(SAMPLE, genus=None)).value == 0
    with pytest.raises(ConfigError, match="'name': genus must be from 0 to 1"):
        rewards.load("name", genus=2)


def test_the_genus_of_an_answer() -> None:
    genera = {"Talo mer": "Talo", "Kite": "Milvus"}
    found = {text: has_genus(READER.read(SAMPLE, f"<answer>{text}</answer>").answer, SAMPLE, genera) for text in
             ("Talo ruvi", "Talo", "Talo mer", "Talo unheard", "Kite", "Kite, Talo mer", "")}  # fmt: skip
    assert found == {
        "Talo ruvi": True, "Talo": True, "Talo mer": True, "Talo unheard": True,
        "Kite": False, "Kite, Talo mer": False, "": False,
    }  # fmt: skip


@pytest.mark.parametrize("style", ["direct", "think"])
@pytest.mark.parametrize("sample", [SAMPLE, LETTERED])
def test_the_target_earns_everything(sample: Sample, style: str) -> None:
    text = task_of(sample).target(sample, style, POCKET, POCKET.frame(sample.size, POCKET.budget))
    done = READER.read(sample, text)
    assert scored(text, sample).value == 1
    assert form.Reward(style).score(sample, done).value == 1  # pyright: ignore[reportArgumentType]
    assert ("A. Black" in text) == (sample is LETTERED)


def test_rows_that_cannot_be_trained_on() -> None:
    for change, message in (({"entity": " "}, "field entity"), ({"options": ("Kite",)}, "field options"),
                            ({"thought": None}, "field thought: style 'think'")):  # fmt: skip
        with pytest.raises(RecordError, match=message):
            task_of(SAMPLE).check(replace(SAMPLE, **change), "think")
    with pytest.raises(RecordError, match="field question: <obj:0> refers to no entry"):
        replace(SAMPLE, question="What species of bird is at <obj:0>?")


def test_a_box_in_the_question_is_written_as_the_family_does() -> None:
    question = questions.naming("bird", "at <obj:0>")
    asked = replace(SAMPLE, question=question, things=(Thing("Kite", Box(0.1, 0.2, 0.4, 0.6)),))
    convention = Convention("pocket", "direct", POCKET.budget)
    (turn,) = conversations.conversation(asked, convention)
    assert turn["content"][1]["text"] == "What species of bird is at (10,20),(40,60)? Answer in <answer></answer>."
    assert conversations.conversation(SAMPLE, convention, "plain")[0]["content"][1]["text"] == SAMPLE.question


def test_questions_that_ask_for_a_name_are_known_by_their_words() -> None:
    for which in range(3):
        assert questions.asks_for_name(questions.naming("bird", which=which))
        assert questions.asks_for_name(questions.naming("bird", "at [1, 2, 3, 4]", which=which))
    assert questions.asks_for_name(LETTERED.question)
    for other in ("Find the bird Kite.", "What is at #1?", "What are the marks of Kite?", "Which of them is red?"):
        assert not questions.asks_for_name(other)
