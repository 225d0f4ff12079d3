"""Line-ups: different entities of one domain, strata kept apart, every entity asked in turn."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.records import Photo
from mllm.synthesis.lineups import LineUp, Pool

WHOLE = Box(0, 0, 1, 1)


def photos(side: str = "test") -> list[Photo]:
    """Eight seen and six unseen birds in three genera, six dogs never trained on, three photos each."""
    rows = []
    for index in range(20):
        domain, seen = ("bird", index < 8) if index < 14 else ("dog", False)
        fields = {"split": side, "use": "train" if seen else "test", "genus": f"{domain} {index % 3}"}
        for number in range(3):
            name = f"{domain} {index}"
            rows.append(Photo(f"{name}/{number}", "x", Frame(9, 9), domain, name, (WHOLE,), **fields))
    return rows


def pool(rows: list[Photo] | None = None, side: str = "test", things: tuple[int, int] = (2, 4)) -> Pool:
    rows = photos() if rows is None else rows
    return Pool(rows, side, {row.entity: ("x",) for row in rows}, things)


def drawn(one: Pool, count: int, sisters: float = 0.5, questions: int = 1) -> list[LineUp]:
    return [one.draw(i, "0", random.Random(i), sisters=sisters, questions=questions) for i in range(count)]


def test_a_line_up_is_of_one_domain_one_stratum_and_different_entities() -> None:
    one = pool()
    assert one.strata == ("seen", "unseen", "unseen domain")
    for index, line in enumerate(drawn(one, 60)):
        names = [photo.entity for photo in line.photos]
        assert 2 <= len(names) == len(set(names)) <= 4
        assert len({photo.domain for photo in line.photos}) == 1
        assert line.stratum == one.strata[index % 3]
        assert {one.stratum[photo.domain, photo.entity] for photo in line.photos} == {line.stratum}
        assert line.targets[0] in line.photos


def test_every_entity_is_asked_before_any_is_asked_again() -> None:
    asked = Counter(line.targets[0].entity for line in drawn(pool(), 3 * 8))
    seen = [asked[f"bird {index}"] for index in range(8)]
    assert seen == [1] * 8
    assert sum(asked[f"dog {index}"] for index in range(14, 20)) == 8


def test_sisters_are_asked_for_by_share() -> None:
    def share(sisters: float) -> float:
        hits = [
            photo.genus == line.targets[0].genus
            for line in drawn(pool(things=(2, 2)), 120, sisters)
            for photo in line.photos
            if photo is not line.targets[0]
        ]
        return sum(hits) / len(hits)

    assert share(0) == 0 and share(1) == 1 and 0.3 < share(0.5) < 0.7


def test_look_alikes_without_a_genus_are_those_with_like_cards() -> None:
    cards = {"a": ("red bill",), "b": ("red bill", "long tail"), "c": ("blue feet",), "d": ("grey back",)}
    fields = {"split": "train", "use": "train"}
    rows = [Photo(name, "x", Frame(9, 9), "bird", name, (WHOLE,), **fields) for name in cards]
    assert Pool(rows, "train", cards, (2, 4)).look_alikes(("bird", "a")) == [("bird", "b")]


def test_several_questions_of_an_image_ask_different_things() -> None:
    for line in drawn(pool(things=(3, 4)), 30, questions=3):
        assert len(line.targets) == 3 == len({photo.entity for photo in line.targets})
        assert all(target in line.photos for target in line.targets)


def test_photos_of_several_boxes_are_never_asked_for() -> None:
    twice = (Box(0, 0, 0.4, 1), Box(0.5, 0, 1, 1))
    fields = {"split": "train", "use": "train"}
    rows = [Photo("a", "x", Frame(9, 9), "bird", "a", twice, **fields)]
    rows += [Photo(name, "x", Frame(9, 9), "bird", name, (WHOLE,), **fields) for name in "bc"]
    assert {line.targets[0].entity for line in drawn(pool(rows, "train"), 20, questions=2)} == {"b", "c"}


def test_too_few_entities_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(FieldmarkError, match="train: no domain has photos of 2 different entities.*fewer things"):
        pool(side="train")


def test_few_unseen_entities_stand_beside_seen_ones() -> None:
    rows = [row for row in photos() if row.seen or row.entity == "bird 8"]
    one = pool(rows)
    lines = [line for line in drawn(one, 40) if line.stratum == "unseen"]
    assert lines and all(len(line.photos) >= 2 and line.targets[0].entity == "bird 8" for line in lines)


def test_an_absent_target_is_in_no_cell_and_several_in_more_than_one() -> None:
    one = pool()
    for index in range(60):
        rng = random.Random(index)
        line = one.draw(index, "0", rng, sisters=0.5, questions=1, kind="absent")
        names = [photo.entity for photo in line.photos]
        assert line.kind == "absent" and line.targets[0].entity not in names and 2 <= len(names) == len(set(names)) <= 4
        assert {one.stratum["bird" if n.startswith("bird") else "dog", n] for n in names} == {line.stratum}
        line = one.draw(index, "0", rng, sisters=0.5, questions=1, kind="several")
        counts = Counter(photo.entity for photo in line.photos)
        assert counts.pop(line.targets[0].entity) in (2, 3) and set(counts.values()) <= {1}
        assert len({photo.id for photo in line.photos}) == len(line.photos) <= 4


def test_several_of_what_has_one_photo_becomes_a_plain_question() -> None:
    one = pool([row for row in photos() if row.id.endswith("/0")])
    line = one.draw(0, "0", random.Random(0), sisters=0.5, questions=1, kind="several")
    assert line.kind == "name" and len({photo.entity for photo in line.photos}) == len(line.photos)


def test_targets_by_photo_are_asked_as_often_as_they_have_photos() -> None:
    rows = [row for row in photos("train") if row.domain == "bird" and row.seen]
    rows += [replace(row, id=f"{row.id}/more{k}") for row in rows if row.entity == "bird 0" for k in range(2)]
    one = Pool(rows, "train", {row.entity: ("x",) for row in rows}, (2, 4), by_photo=True)
    asked = Counter(line.targets[0].entity for line in drawn(one, 9 + 7 * 3))
    assert asked == {"bird 0": 9, **{f"bird {index}": 3 for index in range(1, 8)}}
