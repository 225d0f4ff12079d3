"""Every teacher keeps the contract; unsound reasoning is refused by name; cards invents no mark."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.boxes import Box, Frame
from mllm.data import descriptors
from mllm.errors import ConfigError, UnknownNameError
from mllm.knowledge.cards import Cards, KnowledgeError
from mllm.knowledge.visible import without_unseen
from mllm.metrics.reasoning import read_thought
from mllm.models import families
from mllm.pocket.species import species
from mllm.prompting import prose
from mllm.records import REFERENCE, Sample, Thing
from mllm.synthesis import teachers
from mllm.synthesis.capabilities import Knows, ReasoningRequest
from mllm.synthesis.teachers import cards
from mllm.synthesis.thoughts import concluded, conclusion, problem, targets
from tests.support.synthesis import CARDS, SPECIES, kind_of, sample_of

EVERY = species()
ALL_CARDS = Cards({one.name: one.marks for one in EVERY})
ALL = range(len(EVERY))
WITHOUT_ERRORS = {"pocket_fallible": {"hasty": 0, "blind": 0, "wrong": 0}}
"""Settings with which a teacher keeps the contract."""


@pytest.mark.parametrize("name", [name for name in teachers.names() if name not in ("local", "openai")])
@pytest.mark.parametrize("count", [2, 4, 6])
def test_every_teacher_looks_at_everything_and_ends_on_the_target(name: str, count: int) -> None:
    teacher = teachers.load(name, **WITHOUT_ERRORS.get(name, {}))
    for target in range(count):
        sample = sample_of(count, target)
        thought = teacher.reason(ReasoningRequest(sample, CARDS, seed=5))
        assert problem(sample, thought) is None, thought
        assert conclusion(thought) == target
        assert replace(sample, thought=thought).thought == teacher.reason(ReasoningRequest(sample, CARDS, seed=5))


def test_an_unknown_teacher_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="cards, local, openai, pocket, pocket_fallible"):
        teachers.load("gpt")


def test_settings_are_checked_by_name(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no field 'modle'; it has .*model, "):
        teachers.load("openai", modle="x")
    with pytest.raises(ConfigError, match="'pocket' has no field 'model'; it has none"):
        teachers.load("pocket", model="x")
    with pytest.raises(ConfigError, match="'openai': tries: "):
        teachers.load("openai", model="x", tries=0)
    with pytest.raises(ConfigError, match="'local': .*set `model`|no model is named"):
        teachers.load("local")
    file = tmp_path / "teacher.yaml"
    file.write_text("model: a\ntemperature: 0.5\n")
    assert teachers.read_config(file, ["temperature=0", "system=be kind"]) == {
        "model": "a", "temperature": 0, "system": "be kind",
    }  # fmt: skip
    assert teachers.read_config(None) == {}
    for options in (["model"], ["=x"], ["a=[1"]):
        with pytest.raises(ConfigError, match="teacher option"):
            teachers.read_config(None, options)
    file.write_text("- a\n")
    with pytest.raises(ConfigError, match="teacher.yaml.*got a list"):
        teachers.read_config(file)
    with pytest.raises(ConfigError, match="absent.yaml"):
        teachers.read_config(tmp_path / "absent.yaml")


def test_cards_know_what_their_files_say(tmp_path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text("Redstart: [red tail, black bill, white brow]\nRobin: [black bill, brown tail, loud song]\n")
    teacher = teachers.load("cards", files=[str(file)])
    assert isinstance(teacher, Knows)
    assert teacher.marks("redstart", "bird") == ("red tail", "black bill", "white brow")
    assert teacher.marks("wren", "bird") == () == teacher.differences("wren", "robin", "bird")
    assert teacher.differences("Redstart", "Robin", "bird") == (("red tail", "brown tail"), ("white brow", "loud song"))
    assert teachers.load("cards").marks("redstart", "bird") == ()
    with pytest.raises(KnowledgeError, match="absent.yaml"):
        teachers.load("cards", files=[str(tmp_path / "absent.yaml")])


@given(st.integers(2, 6), st.data())
def test_cards_quotes_marks_and_nothing_else(count: int, data: st.DataObject) -> None:
    target, seed = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, 500))
    sample = sample_of(count, target, data.draw(st.integers(0, len(SPECIES) - count)))
    thought = cards.Teacher().reason(ReasoningRequest(sample, CARDS, seed))
    assert problem(sample, thought) is None, thought
    rest = thought
    spoken = [mark for thing in sample.things for mark in CARDS[thing.entity]] + [
        thing.entity for thing in sample.things
    ]
    for text in sorted(spoken, key=len, reverse=True):
        rest = rest.replace(text, " ")
    wordings = [prose.RECALL, prose.LOOK, cards.OTHER, cards.UNKNOWN, cards.COMPARE]
    grammar = [frames for frames_of in wordings for frames in frames_of.values()] + [prose.NTH, cards.NUMBERS]
    grammar += [cards.TURN, cards.NAMED, cards.FITS, cards.CLOSE, cards.CONCLUDE, cards.CONCLUDE_NAMED]
    allowed = {word for texts in grammar for text in texts for word in words(text)} | {"a", "an", "and", "or", "with"}
    assert set(words(rest)) - allowed == set(), thought


def words(text: str) -> list[str]:
    return re.findall(r"\w+", REFERENCE.sub(" ", re.sub(r"\{\w+\}", " ", text)))


def test_cards_says_how_others_are_known_to_differ_and_denies_nothing() -> None:
    known = {"a": ("red bill", "long tail"), "b": ("black bill", "short neck"), "c": ("red bill", "white eye ring")}
    things = tuple(Thing(name, Box(k / 3, 0, k / 3 + 0.3, 1)) for k, name in enumerate(known))
    sample = Sample("s", "ground", "a", Frame(9, 9), "bird", "a", "?", (things[0].box,), things)
    texts = {cards.Teacher().reason(ReasoningRequest(sample, known, seed)) for seed in range(40)}
    assert len(texts) > 30, "the wording is varied"
    against = [text.format(missing="a red bill", its="a black bill") for text in cards.OTHER[True]]
    silent = [text.format(missing="a long tail") for text in cards.UNKNOWN["has"]]
    for text in texts:
        second, third = (re.search(f"<obj:{number}>", text).start() for number in (1, 2))  # type: ignore[union-attr]
        assert text.index("red bill") < text.index("<obj:0>") < second
        assert any(one in text[second:third] for one in against), "b has another bill"
        assert any(one in text[third:] for one in silent), "c's card says nothing of a tail; its bill is red, too"
        assert not any(word in text for word in ("in vain", "does not show", "Missing"))
    with pytest.raises(KnowledgeError, match="no card for 'c'"):
        cards.Teacher().reason(ReasoningRequest(sample, Cards({"a": ["x"], "b": ["y"]}), 0))


def test_cards_compares_colour_with_colour() -> None:
    """Both are marks of the same part, but one of them is about its size."""
    known = {"a": ("blue eyes", "red bill"), "b": ("large eyes", "black bill")}
    things = tuple(Thing(name, Box(k / 2, 0, k / 2 + 0.4, 1)) for k, name in enumerate(known))
    sample = Sample("s", "ground", "a", Frame(9, 9), "bird", "a", "?", (things[0].box,), things)
    for seed in range(10):
        thought = cards.Teacher().reason(ReasoningRequest(sample, known, seed))
        assert any(text.format(missing="a red bill", its="a black bill") in thought for text in cards.OTHER[True])


@given(st.sampled_from(ALL), st.integers(2, 6), st.integers(0, 500), st.booleans())
def test_what_cards_writes_is_read_back(start: int, count: int, seed: int, described: bool) -> None:
    """Over the vocabulary of all domains, in the form of every family."""
    chosen = [EVERY[(start + place) % len(EVERY)] for place in range(count)]
    step = 1 / count
    things = tuple(Thing(one.name, Box(k * step, 0.2, k * step + 0.9 * step, 0.8)) for k, one in enumerate(chosen))
    target = things[seed % count]
    sample = Sample("s", "ground", "a", Frame(896, 896), "bird", target.entity, "?", (target.box,), things)
    if described:
        sample = replace(sample, kind="description", asked=chosen[seed % count].marks[1:3])
    thought = cards.Teacher().reason(ReasoningRequest(sample, ALL_CARDS, seed))
    for name in families.names():
        family = families.load(name)
        frame = family.frame(sample.size, family.budget)
        read = read_thought(family.write_thought(thought, things, frame), family, frame)
        assert read.name == ("marks" if described else target.entity), thought
        wanted = sample.asked or chosen[seed % count].marks
        assert set(read.recalled) == set(wanted), thought
        looked = [sample.asked if one.name == target.entity and sample.asked else one.marks for one in chosen]
        assert [set(one.marks) for one in read.candidates] == [set(marks) for marks in looked], thought
        assert read.chosen == seed % count + 1 and all(one.box for one in read.candidates)


def test_real_marks_are_read_back(shared_data: Path) -> None:
    """Marks as a language model wrote them, with commas, `and` and mistakes, in whole thoughts."""
    file = shared_data / "fg_knowledge" / "descriptors" / "descriptors_pets.json"
    known = Cards({card.entity: card for card in without_unseen(descriptors.load(file).values())[0]})
    family, names, frame = families.load("qwen3_vl"), list(known), Frame(1000, 1000)
    for seed in range(37):
        chosen = [names[(seed + 9 * place) % 37] for place in range(4)]
        things = tuple(Thing(name, Box(k / 4, 0, k / 4 + 0.2, 1)) for k, name in enumerate(chosen))
        sample = Sample("s", "ground", "a", frame, "dog", chosen[0], "?", (things[0].box,), things)
        thought = cards.Teacher().reason(ReasoningRequest(sample, known, seed))
        read = read_thought(family.write_thought(thought, things, frame), family, frame)
        assert read.name == chosen[0] and read.chosen == 1 and len(read.candidates) == 4, thought
        for name, marks in [(chosen[0], read.recalled), *zip(chosen, (c.marks for c in read.candidates), strict=True)]:
            assert set(marks) <= {prose.bare(prose.phrase(mark)) for mark in known[name]}, (marks, thought)
            assert len(marks) == min(4, len(known[name])), (marks, thought)


# Questions of other kinds: what is not there, all of a kind, a description.


@pytest.mark.parametrize("name", [name for name in teachers.names() if name not in ("local", "openai")])
@pytest.mark.parametrize("kind", ["absent", "several", "description"])
def test_every_teacher_answers_every_kind_of_question(name: str, kind: str) -> None:
    teacher = teachers.load(name, **WITHOUT_ERRORS.get(name, {}))
    for count in (3, 5):
        sample = kind_of(sample_of(count, 0), kind)
        for seed in range(6):
            thought = teacher.reason(ReasoningRequest(sample, CARDS, seed))
            assert problem(sample, thought, CARDS) is None, thought
            wanted = {"absent": (), "several": (0, count - 1), "description": (0,)}[kind]
            assert concluded(sample, thought) == wanted == targets(sample)
            if kind == "description":
                assert sample.entity not in thought


def test_cards_says_what_tells_two_look_alikes_apart() -> None:
    from mllm.knowledge.card_files import Card, Mark

    known = Cards(
        {
            "a": Card("a", marks=(Mark("red bill"),), unlike={"b": (("red bill", "black bill"),)}),
            "b": Card("b", marks=(Mark("black bill"),)),
        }
    )
    things = tuple(Thing(name, Box(k / 2, 0, k / 2 + 0.4, 1)) for k, name in enumerate("ab"))
    sample = Sample("s", "ground", "a", Frame(9, 9), "bird", "a", "?", (things[0].box,), things)
    thought = cards.Teacher().reason(ReasoningRequest(sample, known, 0))
    unlike = [text.format(other="b", own="a red bill", its="a black bill") for text in cards.UNLIKE[True]]
    assert any(text in thought for text in unlike), thought
