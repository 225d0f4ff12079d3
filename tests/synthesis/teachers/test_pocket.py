"""The oracle tells the truth, in the grammar the links are measured on."""

from __future__ import annotations

import random

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.pocket import world
from mllm.pocket.species import Species, species
from mllm.records import Sample, Thing
from mllm.synthesis.capabilities import Edits, Knows, Look, Points, ReasoningRequest, Reasons, Sees
from mllm.synthesis.teachers import load


def _sample(names: list[str], asked: str) -> Sample:
    boxes = [Box(0.5, 0.1, 0.7, 0.3), Box(0.1, 0.5, 0.3, 0.9), Box(0.75, 0.5, 0.95, 0.9)]
    things = tuple(Thing(name, box) for name, box in zip(names, boxes, strict=False))
    return Sample(
        id="s1",
        task="ground",
        image="x.png",
        size=Frame(192, 192),
        domain="bird",
        entity=asked,
        question=f"Find the bird {asked}.",
        boxes=(boxes[names.index(asked)],) if asked in names else (boxes[0],),
        things=things,
        split="train",
        group="x",
    )


def test_the_oracle_goes_left_to_right_and_names_the_number_that_fits() -> None:
    first, second, third = species("bird")[:3]
    sample = _sample([first.name, second.name, third.name], second.name)
    thought = load("pocket").reason(ReasoningRequest(sample, {}, 0))
    recalled = ", ".join(second.marks)

    def looked(one: Species) -> str:
        each = ", ".join(f"{mark} {'fits' if mark in second.marks else 'not'}" for mark in one.marks)
        return f"{each}, {'fits' if one is second else 'not'}"

    assert thought == (
        f"{second.name}: {recalled}. 1 <obj:1>: {looked(second)}. 2 <obj:0>: {looked(first)}. "
        f"3 <obj:2>: {looked(third)}. So 1 <obj:1>."
    )


def test_the_oracle_refuses_what_it_cannot_know() -> None:
    first, second = species("bird")[:2]
    twice = _sample([first.name, first.name], first.name)
    with pytest.raises(FieldmarkError, match="exactly one"):
        load("pocket").reason(ReasoningRequest(twice, {}, 0))
    stranger = _sample(["Great tit", second.name], second.name)
    with pytest.raises(FieldmarkError, match="unknown pocket species"):
        load("pocket").reason(ReasoningRequest(stranger, {}, 0))


def test_the_oracle_knows_sees_and_points(tmp_path) -> None:
    oracle, (first, second) = load("pocket"), species("bird")[:2]
    assert all(isinstance(oracle, ability) for ability in (Reasons, Knows, Sees, Points, Edits))
    assert oracle.marks(first.name, "bird") == first.marks
    assert oracle.marks(first.name, "car") == () == oracle.marks("Great tit", "bird")
    pairs = oracle.differences(first.name, second.name, "bird")
    assert len(pairs) == first.look.differing(second.look) > 0
    assert all(mine in first.marks and other in second.marks for mine, other in pairs)
    img, box = world.photo(first, 3)
    img.save(tmp_path / "a.png")
    look = Look(tmp_path / "a.png", "bird", facts=first.marks)
    wrong = next(mark for mark in second.marks if mark not in first.marks)
    assert oracle.sees(look, [first.marks[1], wrong, "a kind face"]) == (True, False, None)
    assert all(mark in oracle.describe(look) for mark in first.marks)
    assert len({oracle.describe(look, seed=seed) for seed in range(9)}) == 3
    assert oracle.point(look, first.name) == (box,) and oracle.point(look, second.name) == ()
    part = Box(0.1, 0.1, 0.5, 0.5)
    assert oracle.point(Look(tmp_path / "a.png", "bird", part, first.marks), first.name) == (part,)
    for ask in (lambda bare: oracle.describe(bare), lambda bare: oracle.point(bare, first.name)):
        with pytest.raises(FieldmarkError, match="a.png.*answers from the facts"):
            ask(Look(tmp_path / "a.png", "bird"))


def test_the_oracle_finds_things_by_looking() -> None:
    for one in species()[::17]:
        img, box = world.photo(one, 1)
        assert world.departure(img, one.domain) == box
    assert world.departure(world.background("bird", (96, 96), random.Random(0)), "bird") is None


def test_the_oracle_edits() -> None:
    oracle = load("pocket")
    assert (
        oracle.expand("A red bird.", "A bird: round, blue, striped, black cap.")
        == "A red bird, round, striped, black cap."
    )
    assert oracle.expand("A red bird.", "It is red.") == "A red bird."
    whole = oracle.blend(["A red bird.", "A round bird. It looks away.", "A bird, black cap. It looks away."])
    assert whole == "A red bird, round, black cap. It looks away."
    with pytest.raises(FieldmarkError, match="at least one"):
        oracle.blend([])
