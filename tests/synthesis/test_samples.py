"""Scenes become samples, with every kind of question and every teacher; names of images."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.knowledge.cards import Cards
from mllm.models import families
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.prompting.questions import Mixture
from mllm.records import Photo, PhotoThing, Sample
from mllm.synthesis import contact_sheet, teacher_prompts, teachers, thoughts
from mllm.synthesis.capabilities import ReasoningRequest
from mllm.synthesis.lineups import Pool
from mllm.synthesis.samples import CompositionStyle, SampleMaker, image_name

KINDS = [species("bird")[0], species("bird")[1], species("car")[0], species("bird")[2], species("car")[1]]
CARDS = Cards({one.name: one.marks for one in KINDS})


def scenes(folder: Path) -> list[Photo]:
    """Four photos of four drawn things of two domains each; the first thing of a photo is there twice."""
    found = []
    for number in range(4):
        canvas, things = world.background("bird", (384, 96), random.Random(number)), []
        kinds = [KINDS[number], KINDS[number], KINDS[(number + 1) % 5], KINDS[(number + 2) % 5]]
        for k, one in enumerate(kinds):
            image, box = world.photo(one, 10 * number + k)
            canvas.paste(image, (96 * k, 0))
            things.append(PhotoThing(one.name, one.domain, box.inside(Box(k / 4, 0, (k + 1) / 4, 1)), use="train"))
        canvas.save(folder / f"{number}.png")
        found.append(Photo(str(number), f"{number}.png", Frame(384, 96), tuple(things), split="train"))
    return found


def made(folder: Path, teacher: str, mixture: Mixture, rows: list[Photo] | None = None, **style: Any) -> list[Sample]:
    maker = SampleMaker(
        Pool(scenes(folder) if rows is None else rows, "train", CARDS, (2, 4)),
        teachers.load(teacher),
        CompositionStyle(families.load("qwen3_vl"), **style),
        folder,
        seed=0,
        look_alikes=0.5,
        questions=1,
        mixture=mixture,
        provenance={},
    )
    return [sample for number in range(4) for sample in maker.make(number)]


@pytest.mark.parametrize("teacher", ["cards", "pocket"])
@pytest.mark.parametrize("kind", ["name", "descriptions", "absent", "several"])
def test_a_scene_is_asked_about_and_reasoned_about(tmp_path: Path, teacher: str, kind: str) -> None:
    for row in made(tmp_path, teacher, Mixture(**({} if kind == "name" else {kind: 1}))):
        there = [thing.box for thing in row.things if thing.entity == row.entity]
        assert (row.layout, row.kind) == ("scene", kind.removesuffix("s") if kind == "descriptions" else kind)
        assert row.boxes == tuple(there) and len(there) == {"absent": 0, "several": 2}.get(kind, 1)
        assert row.domain == next(one.domain for one in KINDS if one.name == row.entity)
        assert row.thought is not None and thoughts.problem(row, row.thought, CARDS) is None
        assert "these" not in row.question and "cars" not in row.question, "other things are of other domains"
        assert Frame(*open_image(tmp_path / row.image).size) == row.size == Frame(384, 96)
        assert len(row.things) == 4 and row.seen
    assert contact_sheet.sheet(tmp_path, [row]).size[0] == contact_sheet.ACROSS * contact_sheet.CELL


def test_a_request_for_reasoning_says_what_is_asked_for_in_a_scene(tmp_path: Path) -> None:
    def prompt(kind: str) -> str:
        request = ReasoningRequest(made(tmp_path, "cards", Mixture(**{kind: 1}))[0], CARDS, 0)
        return teacher_prompts.reasoning(request, families.load("qwen3_vl"), Frame(1000, 1000))

    several, absent = prompt("several"), prompt("absent")
    assert "there are 4 things" in several and "The answer is numbers 1, 2, every" in several
    assert "The answer is that none of them is" in absent and "is not among them and holds no box" in absent


def test_a_large_scene_is_scaled_and_only_what_is_asked_for_must_be_large_enough(tmp_path: Path) -> None:
    rows = scenes(tmp_path)
    tiny = PhotoThing(KINDS[4].name, "car", Box(0.9, 0, 0.91, 0.02), use="train")
    rows = [replace(row, things=(*row.things, tiny)) for row in rows[:2]]
    found = made(tmp_path, "cards", Mixture(), rows, max_side=192, min_box=8)
    assert {row.size for row in found} == {Frame(192, 48)} and tiny.entity not in {row.entity for row in found}
    assert any("a box is too small" in row.refused for row in found)
    with pytest.raises(FieldmarkError, match="the last because: a box is too small"):
        made(tmp_path, "cards", Mixture(), rows, max_side=64)


def test_a_crowd_could_fit_a_description(tmp_path: Path) -> None:
    crowd = (PhotoThing(KINDS[4].name, "car", use="train"),)
    rows = [replace(row, crowds=crowd) for row in scenes(tmp_path)]
    with pytest.raises(FieldmarkError, match="the last because: a crowd may have the marks asked for"):
        made(tmp_path, "cards", Mixture(descriptions=1), rows)


def test_no_folder_holds_more_than_a_hundred_thousand_images() -> None:
    assert [image_name(number) for number in (0, 99_999)] == ["000000", "099999"]
    assert [image_name(number) for number in (100_000, 1_234_567)] == ["0001/100000", "0012/1234567"]
