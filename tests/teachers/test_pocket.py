"""The oracle tells the truth, in the grammar the links are measured on."""

from __future__ import annotations

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.pocket import world
from mllm.records import Sample, Thing
from mllm.teachers import Reasoning, load


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
    first, second, third = world.species("bird")[:3]
    sample = _sample([first.name, second.name, third.name], second.name)
    thought = load("pocket").reason(Reasoning(sample, {}, 0))
    recalled = ", ".join(second.marks)

    def looked(one: world.Species) -> str:
        each = ", ".join(f"{mark} {'fits' if mark in second.marks else 'not'}" for mark in one.marks)
        return f"{each}, {'fits' if one is second else 'not'}"

    assert thought == (
        f"{second.name}: {recalled}. 1 <obj:1>: {looked(second)}. 2 <obj:0>: {looked(first)}. "
        f"3 <obj:2>: {looked(third)}. So 1 <obj:1>."
    )


def test_the_oracle_refuses_what_it_cannot_know() -> None:
    first, second = world.species("bird")[:2]
    twice = _sample([first.name, first.name], first.name)
    with pytest.raises(FieldmarkError, match="exactly one"):
        load("pocket").reason(Reasoning(twice, {}, 0))
    stranger = _sample(["Great tit", second.name], second.name)
    with pytest.raises(FieldmarkError, match="unknown pocket species"):
        load("pocket").reason(Reasoning(stranger, {}, 0))
