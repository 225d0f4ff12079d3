"""Line-ups: different entities of one domain, strata kept apart, every entity asked in turn."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.records import Photo, PhotoThing, QuestionKind
from mllm.synthesis.lineups import LineUp, Pool
from tests.support.photos import one_kind

WHOLE = Box(0, 0, 1, 1)


def photos(side: str = "test") -> list[Photo]:
    """Eight seen and six unseen birds in three genera, six dogs never trained on, three photos each."""
    rows = []
    for index in range(20):
        domain, seen = ("bird", index < 8) if index < 14 else ("dog", False)
        fields = {"split": side, "use": "train" if seen else "test", "genus": f"{domain} {index % 3}"}
        for number in range(3):
            name = f"{domain} {index}"
            rows.append(one_kind(f"{name}/{number}", "x", Frame(9, 9), domain, name, (WHOLE,), **fields))
    return rows


def pool(rows: list[Photo] | None = None, side: str = "test", things: tuple[int, int] = (2, 4)) -> Pool:
    rows = photos() if rows is None else rows
    return Pool(rows, side, {thing.entity: ("x",) for row in rows for thing in row.things}, things)


def drawn(one: Pool, count: int, sisters: float = 0.5, questions: int = 1) -> list[LineUp]:
    return [one.draw(i, "0", random.Random(i), sisters=sisters, questions=questions) for i in range(count)]


def test_a_line_up_is_of_one_domain_one_stratum_and_different_entities() -> None:
    one = pool()
    assert one.strata == ("seen", "unseen", "unseen domain")
    for index, line in enumerate(drawn(one, 60)):
        names = [name for photo in line.photos for _, name in photo.kinds]
        assert 2 <= len(names) == len(set(names)) <= 4
        assert len({domain for photo in line.photos for domain, _ in photo.kinds}) == 1
        assert line.stratum == one.strata[index % 3]
        assert {one.stratum[kind] for photo in line.photos for kind in photo.kinds} == {line.stratum}
        assert line.targets[0] in [thing for photo in line.photos for thing in photo.things]


def test_every_entity_is_asked_before_any_is_asked_again() -> None:
    asked = Counter(line.targets[0].entity for line in drawn(pool(), 3 * 8))
    seen = [asked[f"bird {index}"] for index in range(8)]
    assert seen == [1] * 8
    assert sum(asked[f"dog {index}"] for index in range(14, 20)) == 8


def test_sisters_are_asked_for_by_share() -> None:
    def share(sisters: float) -> float:
        hits = [
            photo.things[0].genus == line.targets[0].genus
            for line in drawn(pool(things=(2, 2)), 120, sisters)
            for photo in line.photos
            if photo.things[0] is not line.targets[0]
        ]
        return sum(hits) / len(hits)

    assert share(0) == 0 and share(1) == 1 and 0.3 < share(0.5) < 0.7


def test_look_alikes_without_a_genus_are_those_with_like_cards() -> None:
    cards = {"a": ("red bill",), "b": ("red bill", "long tail"), "c": ("blue feet",), "d": ("grey back",)}
    fields = {"split": "train", "use": "train"}
    rows = [one_kind(name, "x", Frame(9, 9), "bird", name, (WHOLE,), **fields) for name in cards]
    assert Pool(rows, "train", cards, (2, 4)).look_alikes(("bird", "a")) == [("bird", "b")]


def test_several_questions_of_an_image_ask_different_things() -> None:
    for line in drawn(pool(things=(3, 4)), 30, questions=3):
        assert len(line.targets) == 3 == len({photo.entity for photo in line.targets})
        assert all(target in [thing for photo in line.photos for thing in photo.things] for target in line.targets)


def test_photos_of_several_boxes_are_never_asked_for() -> None:
    twice = (Box(0, 0, 0.4, 1), Box(0.5, 0, 1, 1))
    fields = {"split": "train", "use": "train"}
    rows = [one_kind("a", "x", Frame(9, 9), "bird", "a", twice, **fields)]
    rows += [one_kind(name, "x", Frame(9, 9), "bird", name, (WHOLE,), **fields) for name in "bc"]
    assert {line.targets[0].entity for line in drawn(pool(rows, "train"), 20, questions=2)} == {"b", "c"}


def test_too_few_entities_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(FieldmarkError, match="train: no domain has photos of 2 different entities.*fewer things"):
        pool(side="train")


def test_few_unseen_entities_stand_beside_seen_ones() -> None:
    rows = [row for row in photos() if row.things[0].seen or row.things[0].entity == "bird 8"]
    one = pool(rows)
    lines = [line for line in drawn(one, 40) if line.stratum == "unseen"]
    assert lines and all(len(line.photos) >= 2 and line.targets[0].entity == "bird 8" for line in lines)


def test_an_absent_target_is_in_no_cell_and_several_in_more_than_one() -> None:
    one = pool()
    for index in range(60):
        rng = random.Random(index)
        line = one.draw(index, "0", rng, sisters=0.5, questions=1, kind="absent")
        names = [name for photo in line.photos for _, name in photo.kinds]
        assert line.kind == "absent" and line.targets[0].entity not in names and 2 <= len(names) == len(set(names)) <= 4
        assert {one.stratum["bird" if n.startswith("bird") else "dog", n] for n in names} == {line.stratum}
        line = one.draw(index, "0", rng, sisters=0.5, questions=1, kind="several")
        counts = Counter(photo.things[0].entity for photo in line.photos)
        assert counts.pop(line.targets[0].entity) in (2, 3) and set(counts.values()) <= {1}
        assert len({photo.id for photo in line.photos}) == len(line.photos) <= 4


def test_several_of_what_has_one_photo_becomes_a_plain_question() -> None:
    one = pool([row for row in photos() if row.id.endswith("/0")])
    line = one.draw(0, "0", random.Random(0), sisters=0.5, questions=1, kind="several")
    assert line.kind == "name" and len({photo.kinds for photo in line.photos}) == len(line.photos)


def test_targets_by_photo_are_asked_as_often_as_they_have_photos() -> None:
    rows = [row for row in photos("train") if row.things[0].domain == "bird" and row.things[0].seen]
    rows += [replace(row, id=f"{row.id}/more{k}") for row in rows if row.things[0].entity == "bird 0" for k in range(2)]
    one = Pool(rows, "train", {thing.entity: ("x",) for row in rows for thing in row.things}, (2, 4), by_photo=True)
    asked = Counter(line.targets[0].entity for line in drawn(one, 9 + 7 * 3))
    assert asked == {"bird 0": 9, **{f"bird {index}": 3 for index in range(1, 8)}}


def scene_of(key: str, *names: str, crowd: str | None = None) -> Photo:
    """A test photo whose things are named after their use, two in a row."""
    things = tuple(
        PhotoThing(name, "bird", Box(k / 9, 0, (k + 1) / 9, 1), use="test" if name.startswith("u") else "train")
        for k, name in enumerate(names)
    )
    crowds = () if crowd is None else (PhotoThing(crowd, "bird", use="train"),)
    return Photo(key, "x", Frame(9, 9), things, crowds, split="test")


SCENES = [
    scene_of("0", "a", "b", "c"),
    scene_of("1", "a", "d", "d"),
    scene_of("2", "u", "b"),
    scene_of("3", "c", "d", crowd="a"),
    scene_of("4", "e", crowd="a"),
]


def scenes_of(rows: list[Photo], share: float | None = None) -> Pool:
    return Pool(
        rows, "test", {thing.entity: (thing.entity,) for row in rows for thing in row.things}, (2, 4), scenes=share
    )


def test_a_scene_asks_for_what_is_there_once_or_more_than_once_or_not() -> None:
    one, kinds = scenes_of(SCENES), Counter[str]()
    assert one.share == 1 and not one.strata, "no photo shows one kind alone"
    for index, kind in itertools.product(range(24), get_args(QuestionKind)):
        line = one.draw(index, "0", random.Random(index), sisters=0.5, questions=1, kind=kind)
        (photo,), (target,) = line.photos, line.targets
        there, crowds = len(photo.of(target.kind)), {crowd.kind for crowd in photo.crowds}
        assert line.stratum == ("unseen" if target.entity == "u" else "seen") and len(photo.things) > 1
        assert target.kind not in crowds, "of a crowd it would be unclear which is meant, and how many there are"
        assert there == 0 if line.kind == "absent" else there > 1 if line.kind == "several" else there == 1
        kinds[f"{kind} {line.kind}"] += 1
    assert kinds == {f"{kind} {kind}": 24 for kind in get_args(QuestionKind)}
    line = one.draw(0, "0", random.Random(0), sisters=0.5, questions=3)
    assert len({target.entity for target in line.targets}) == len(line.targets)
    again = [one.draw(0, "0", random.Random(0), sisters=0.5, questions=1, attempt=k).targets[0] for k in range(3)]
    assert len(set(again)) > 1, "after a refusal another entity follows"


def test_scenes_and_composites_mix_by_a_share() -> None:
    rows = [*(row for row in photos() if row.things[0].seen), *SCENES]
    for share, count in ((None, 5), (0.5, 29 // 2), (0.0, 0), (1.0, 29)):
        lines = drawn(scenes_of(rows, share), 29)
        assert sum(len(line.photos) == 1 for line in lines) == count
    assert [len(line.photos) > 1 for line in drawn(scenes_of(rows, 0.25), 8)] == [True, True, True, False] * 2
    asked = Counter(line.targets[0].entity for line in drawn(scenes_of(rows, 0.5), 16) if len(line.photos) > 1)
    assert set(asked.values()) == {1}, "composites ask for every entity in turn, whatever stands between them"
    with pytest.raises(FieldmarkError, match="test: no photo on this side shows several kinds.*--scenes 0"):
        scenes_of(photos(), 0.5)
    with pytest.raises(FieldmarkError, match="test: no domain has photos.*--scenes 1"):
        scenes_of(SCENES, 0.5)


def test_what_is_held_out_for_another_side_is_not_asked_for() -> None:
    row = scene_of("0", "a", "u")
    other = replace(row, things=(row.things[0], replace(row.things[1], use="validation")))
    assert {line.targets[0].entity for line in drawn(scenes_of([other]), 9)} == {"a"}
