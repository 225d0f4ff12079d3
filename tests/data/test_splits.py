"""Who is seen, who is held out, and that no image is on two sides."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageDraw

from mllm.boxes import Box, Frame
from mllm.data.near_duplicates import near_duplicates
from mllm.data.splits import Shares, fingerprint, long_tail, split, uses
from mllm.errors import FieldmarkError
from mllm.records import Photo
from tests.support.photos import one_kind


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """An image that looks like no other: soft coloured blobs."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, r = rng.randrange(size[0]), rng.randrange(size[1]), rng.randint(8, 45)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.randrange(256) for _ in range(3)))
    return image


def photo(number: int, entity: str, domain: str = "bird", **fields: Any) -> Photo:
    box = Box(0.25, 0.2, 0.75, 0.8)
    return one_kind(f"{entity}-{number}", f"{number}.png", Frame(160, 120), domain, entity, (box,), **fields)


def test_copies_of_an_image_are_found_and_other_images_are_not() -> None:
    rng = random.Random(1)
    images = [scene(seed) for seed in range(40)]
    copies = [
        images[0].resize((320, 240)),
        images[1].resize((80, 60)),
        images[2].point([min(255, value + 6) for value in range(256)] * 3),
        images[3].crop((20, 12, 150, 110)),  # the same box, seen closer
    ]
    listed = images + copies
    rows = [photo(index, "wren") for index in range(len(images) + 3)]
    # the crop's photo has its own box, around the same thing
    rows.append(
        one_kind("crop", "c.png", Frame(130, 98), "bird", "wren", (Box(20 / 130, 12 / 98, 100 / 130, 84 / 98),))
    )
    groups = near_duplicates([fingerprint(image, row.boxes) for image, row in zip(listed, rows, strict=True)])
    assert groups[:40] == list(range(40)), "different images stay apart"
    assert groups[40:] == [0, 1, 2, 3]
    assert near_duplicates([]) == [] and rng


def test_entities_are_held_out_by_a_stable_hash() -> None:
    names = {("bird", f"bird {index}"): None for index in range(24)} | {("dog", "pug"): None}
    decided = uses(names, Shares(unseen=0.25, unseen_domains=("dog",)), seed=0)
    assert Counter(decided.values()) == {"train": 18, "test": 4 + 1, "validation": 2}
    assert decided[("dog", "pug")] == "test"
    assert decided == uses(dict(reversed(names.items())), Shares(unseen_domains=("dog",)), seed=0)
    assert decided != uses(names, Shares(unseen_domains=("dog",)), seed=1)
    assert uses({("bird", "a"): "validation"}, Shares(), 0) == {("bird", "a"): "validation"}


def test_no_group_is_on_two_sides_and_held_out_entities_stay_out_of_training() -> None:
    photos = [photo(number, f"bird {entity}") for entity in range(12) for number in range(6)]
    prints = [
        fingerprint(scene(index // 2), one.boxes) for index, one in enumerate(photos)
    ]  # every image is there twice
    done = split(photos, prints, Shares(), seed=3)
    sides: dict[str, set[str]] = defaultdict(set)
    of_entity: dict[str, set[str]] = defaultdict(set)
    for one in done.photos:
        sides[one.group].add(one.split)
        of_entity[one.things[0].entity].add(one.split)
        assert one.things[0].seen == (one.things[0].use == "train")
    assert all(len(found) == 1 for found in sides.values()) and done.groups_joined == 36
    kinds = {one.things[0].entity: one.things[0].use for one in done.photos}
    assert Counter(kinds.values()) == {"train": 9, "test": 2, "validation": 1}
    for entity, found in of_entity.items():
        assert found == ({"train", "validation", "test"} if kinds[entity] == "train" else {kinds[entity]})
    assert not done.left_out


def test_a_look_alike_of_a_held_out_photo_follows_it_or_is_left_out() -> None:
    photos = [photo(0, "a", use="train"), photo(1, "a", use="train"), photo(2, "b", use="test")]
    photos += [photo(3, "c", use="validation"), photo(4, "c", use="validation")]
    imgs = [scene(0), scene(1), scene(1), scene(1), scene(2)]
    done = split(photos, [fingerprint(image, one.boxes) for image, one in zip(imgs, photos, strict=True)], Shares(), 0)
    assert {one.id: one.split for one in done.photos} == {
        "a-0": "train", "a-1": "test", "b-2": "test", "c-4": "validation",
    }  # fmt: skip
    assert dict(done.left_out) == {"looks like a photo of the test side, its entity is for validation": 1}


@pytest.mark.parametrize("bad", [{"test": 1.0}, {"unseen": -0.1}, {"validation": 0.5, "test": 0.5}])
def test_shares_that_leave_nothing_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(FieldmarkError, match="share"):
        Shares(**bad)


def test_a_long_tail_thins_the_training_photos_alone() -> None:
    rows = [
        replace(photo(k, f"e{entity}"), id=f"{side}{entity}/{k}", split=side)
        for entity in range(9)
        for side, count in (("train", 50), ("test", 3))
        for k in range(count)
    ]
    kept = long_tail(rows, 40, seed=0)
    counts = Counter((one.split, one.things[0].entity) for one in kept)
    assert all(counts["test", f"e{entity}"] == 3 for entity in range(9))
    # 40 ** (1 - k / 8), rounded
    assert sorted(counts["train", f"e{entity}"] for entity in range(9)) == [1, 2, 3, 4, 6, 10, 16, 25, 40]
    assert kept == long_tail(rows, 40, seed=0) != long_tail(rows, 40, seed=1)
    assert [one.id for one in kept] == [one.id for one in rows if one in kept], "in their order"
    assert len(long_tail(rows[:1], 40, seed=0)) == 1


def scene_of(number: int, *entities: str, crowd: str | None = None) -> Photo:
    """A photo of several kinds, each held out for the side that its name begins with."""
    things = tuple(photo(0, name, use=name.split()[0]).things[0] for name in entities)
    crowds = () if crowd is None else photo(0, crowd, use=crowd.split()[0]).things
    return Photo(str(number), f"{number}.png", Frame(160, 120), things, crowds)


def test_a_photo_of_several_kinds_is_on_one_side_whole_and_shows_no_held_out_kind_in_training() -> None:
    kinds = [("train a", "train b"), ("train a", "test c"), ("train a", "validation d"), ("validation d", "test c")]
    photos = [scene_of(number, *kinds[number % 4]) for number in range(40)]
    photos.append(scene_of(40, "train a", crowd="test c"))
    done = split(photos, [[]] * 41, Shares(), 0)
    side = {one.id: one.split for one in done.photos}
    assert {side[str(number)] for number in range(0, 40, 4)} == {"train"}, "the other sides have photos of these kinds"
    assert {side[str(number)] for number in range(1, 40, 4)} == {"test"} == {side["40"]}
    assert {side[str(number)] for number in range(2, 40, 4)} == {"validation"}
    assert {side[str(number)] for number in range(3, 40, 4)} == {"test"}, "beside what is asked for"
    twins = [scene_of(0, "train a", "train b"), scene_of(1, "test c"), scene_of(2, "validation d")]
    done = split(twins, [["00-00"]] * 3, Shares(), 0)
    assert [one.id for one in done.photos] == ["0", "1"] and {one.split for one in done.photos} == {"test"}
    assert done.left_out.total() == 1


def test_a_long_tail_counts_every_kind_of_a_photo() -> None:
    photos = [replace(scene_of(number, "train a", "train b"), split="train") for number in range(5)]
    assert len(long_tail(photos, 3, 0)) == 1, "of the rarer kind one photo stays"
