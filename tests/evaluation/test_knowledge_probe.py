"""Questions about what is known: look-alikes as wrong names, orders by seed, letters and marks read and graded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.evaluation import knowledge_probe
from mllm.evaluation.knowledge_probe import Item
from mllm.models import families
from mllm.records import Answer, Completion, Photo, PhotoThing, Sample, Thing

NAMES = ["kite", "owl", "robin", "wren", "redstart", "black redstart"]
ITEM = Item("a.png#0", "wren", "bird", "a.png", Frame(200, 100), Box(0.1, 0.2, 0.5, 0.6), ("robin",))


def completion(sample: Sample, text: str) -> Completion:
    return Completion(sample.id, text, Answer(None, None, (), (), None))


def test_wrong_names_are_those_beside_it_then_those_alike() -> None:
    for seed in range(10):
        names = knowledge_probe.options(ITEM, NAMES, seed, {"wren": ["owl", "kite", "redstart"]})
        assert sorted(names) == ["kite", "owl", "robin", "wren"]
    orders = Counter(knowledge_probe.options(ITEM, NAMES, seed).index("wren") for seed in range(200))
    assert all(25 < orders[place] < 75 for place in range(4))  # no place gives the answer away
    assert knowledge_probe.options(ITEM, NAMES, 7) == knowledge_probe.options(ITEM, NAMES, 7)
    with pytest.raises(FieldmarkError, match="domain 'bird' has 3 entities"):
        knowledge_probe.options(ITEM, NAMES[2:4] + ["owl"], 0)


def test_nearest_cards_share_most_marks() -> None:
    cards = {
        "wren": ("small", "brown", "cocked tail"),
        "kite": ("large",),
        "owl": ("brown", "small"),
        "robin": ("brown",),
    }
    assert knowledge_probe.nearest_cards("wren", NAMES[:5], cards) == ["owl", "robin", "kite", "redstart"]


def test_things_of_shared_images_come_once() -> None:
    things = (Thing("wren", Box(0, 0, 0.5, 1)), Thing("owl", Box(0.5, 0, 1, 1)))
    one = Sample("1", "ground", "a.png", Frame(9, 9), "bird", "wren", "?", (things[0].box,), things)
    found = knowledge_probe.items([one, replace(one, id="2", entity="owl")])
    assert [(item.entity, item.beside) for item in found] == [("wren", ("owl",)), ("owl", ("wren",))]
    assert knowledge_probe.by_domain(found) == {"bird": ["owl", "wren"]}
    both = [one, replace(one, id="2", entity="owl", domain="owl")]
    assert [item.domain for item in knowledge_probe.items(both)] == ["bird", "owl"], "each is asked about by its domain"
    shown = tuple(PhotoThing(thing.entity, f"{thing.entity}s", thing.box) for thing in things)
    scene = Photo("1", "a.png", Frame(9, 9), shown, crowds=(PhotoThing("kite", "bird"),))
    found = knowledge_probe.items([scene])
    assert [(item.domain, item.beside) for item in found] == [("wrens", ("owl", "kite")), ("owls", ("wren", "kite"))]
    assert not knowledge_probe.one_an_image(found)
    assert "robin" not in knowledge_probe.options(ITEM, ["wren", "owl", "kite", "redstart"], 0), "of another domain"
    many = [replace(ITEM, id=str(k)) for k in range(9)]
    drawn = knowledge_probe.draw(many, 3, seed=1)
    assert len(drawn) == 3 and drawn == knowledge_probe.draw(many, 3, seed=1) != knowledge_probe.draw(many, 3, seed=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1),
        ("<answer>B</answer>", 1),
        ("<think>A or B?</think><answer> (C). </answer>", 2),
        ("D. wren", 3),
        ("**A**", 0),
        ("wren", 3),
        ("It is a wren.", 3),
        ("The black redstart", 2),
        ("a redstart", 1),
        ("redstart or wren", None),
        ("", None),
        ("E", None),
        ("b", None),
        ("Both", None),
        ("A-type", None),
        ("A wren.", 3),
        ("B redstart", 1),
        ("B\nbecause of its tail", 1),
    ],
)
def test_choices_are_read(text: str, expected: int | None) -> None:
    assert knowledge_probe.read_choice(text, ["kite", "redstart", "black redstart", "wren"]) == expected


def test_choices_are_asked_and_graded() -> None:
    (asked,) = knowledge_probe.choices([ITEM], {"bird": NAMES}, seed=3)
    names = asked.options
    listed = " ".join(f"{letter}. {name}." for letter, name in zip("ABCD", names, strict=True))
    assert asked.question == f"Which bird is this? {listed} Answer with the letter."
    right = "ABCD"[names.index("wren")]
    for text, expected in ((right, 1.0), ("ABCD".replace(right, "")[0], 0.0), ("who knows", 0.0)):
        assert knowledge_probe.grade_choices([asked], {asked.id: completion(asked, text)}) == [("wren", expected)]


def test_marks_are_asked_and_compared() -> None:
    pocket = families.load("pocket")
    asked = knowledge_probe.marks([ITEM], {"bird": NAMES[:4]}, 0, pocket, pocket.budget)
    assert [sample.question for sample in asked if sample.options] == ["What is at (10,20),(50,60)?"]
    assert {s.question for s in asked[1:]} == {f"What are the marks of {name}?" for name in NAMES[:4]}
    cards = {"wren": "round, red", "owl": "round, blue", "kite": "wide, blue", "robin": "tall, green"}

    def grade(seen: str, **known: str) -> float:
        texts = {f"recall bird {name}": f"{name}: {marks}." for name, marks in (cards | known).items()}
        rows = {s.id: completion(s, texts.get(s.id, seen)) for s in asked}
        ((entity, right),) = knowledge_probe.grade_marks(asked, rows)
        assert entity == "wren"
        return right

    assert grade("Round, red.") == 1.0
    assert grade("round, blue.") == 0.0  # it looks like the owl
    assert grade("round.") == 0.5  # two names fit alike
    assert grade("square.") == 0.25  # none fits: a guess among four
    assert grade("round, red.", wren="wide, blue") == 0.0  # seen right, recalled wrong
