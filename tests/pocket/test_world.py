"""The pocket world: what is in it, that it stays the same, and that its boxes are the truth."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from mllm.errors import FieldmarkError
from mllm.pocket import world
from mllm.pocket.drawing import sprite
from mllm.pocket.species import DOMAINS, FORMS, SEEN_DOMAINS, UNSEEN_DOMAINS, Marks, find, sisters, species


def test_ten_domains_of_thirty_species_with_distinct_names_and_looks() -> None:
    assert len(DOMAINS) == 10 and set(SEEN_DOMAINS).isdisjoint(UNSEEN_DOMAINS)
    names = [one.name for one in species()]
    assert len(names) == len(set(names)) == 300
    for domain in DOMAINS:
        of_domain = species(domain)
        assert len(of_domain) == 30
        assert len({one.look for one in of_domain}) == 30, "two species of a domain look the same"


def test_sisters_are_one_or_two_marks_apart_from_the_first_of_their_genus() -> None:
    for domain in DOMAINS:
        of_domain = species(domain)
        for start in range(0, 30, 3):
            first, *others = of_domain[start : start + 3]
            assert {one.genus for one in others} == {first.genus}
            assert set(sisters(first)) == set(others)
            assert all(1 <= first.look.differing(other.look) <= 2 for other in others)


def test_every_split_has_its_species_and_unseen_domains_are_never_trained_on() -> None:
    uses = {use: [one for one in species() if one.use == use] for use in ("train", "validation", "test")}
    assert {use: len(found) for use, found in uses.items()} == {"train": 100, "validation": 20, "test": 180}
    assert {one.domain for one in uses["train"] + uses["validation"]} == set(SEEN_DOMAINS)
    for domain in SEEN_DOMAINS:
        assert {one.use for one in species(domain)} == {"train", "validation", "test"}


def test_marks_are_words_and_accent_differs_from_the_main_colour() -> None:
    one = species("bird")[0]
    assert one.marks == (one.look.form, one.look.colour, one.look.pattern, f"{one.look.accent} cap")
    assert all(one.look.colour != one.look.accent for one in species())


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(FieldmarkError, match="known are for instance"):
        find("Dodo dodo")
    with pytest.raises(FieldmarkError, match="aircraft"):
        species("fish")


def test_the_world_is_the_same_everywhere() -> None:
    """Committed weights know these very species; a change here needs new weights."""
    text = "\n".join(f"{one.name}|{one.domain}|{one.use}|{','.join(one.marks)}" for one in species())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "8fe5704f06c0b08e"


def test_photos_repeat_by_seed_and_differ_between_seeds() -> None:
    one = species("flower")[3]
    first, again, other = world.photo(one, 1), world.photo(one, 1), world.photo(one, 2)
    assert first[0].tobytes() == again[0].tobytes() and first[1] == again[1]
    assert first[0].tobytes() != other[0].tobytes()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("form", FORMS)
def test_a_sprite_fills_its_image_to_all_four_edges(domain: str, form: str) -> None:
    """The crop of a sprite is its box, so painted pixels must touch every edge."""
    drawn = sprite(domain, Marks(form, "red", "plain", "blue"), 60, random.Random(0))
    alpha = np.asarray(drawn)[..., 3]
    assert max(drawn.size) == 60
    assert all(edge.max() > 0 for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))


def test_the_box_of_a_photo_holds_all_that_changes_with_the_thing() -> None:
    """The same ground without the thing differs from the photo inside the box only."""
    one = species("car")[5]
    image, box = world.photo(one, 7)
    rng = random.Random(f"photo/{one.name}/7")
    empty = np.asarray(world.background(one.domain, image.size, rng)).astype(int)
    changed = np.abs(np.asarray(image).astype(int) - empty).sum(axis=2) > 0
    rows, columns = np.nonzero(changed)
    x1, y1, x2, y2 = (value * world.TILE for value in (box.x1, box.y1, box.x2, box.y2))
    assert columns.min() >= x1 - 0.5 and columns.max() <= x2 - 0.5
    assert rows.min() >= y1 - 0.5 and rows.max() <= y2 - 0.5
    assert columns.max() - columns.min() + 1 >= (x2 - x1) * 0.9


@pytest.mark.parametrize("marked", ["form", "colour", "pattern", "accent"])
def test_one_changed_mark_changes_the_image(marked: str) -> None:
    base = Marks("round", "red", "plain", "blue")
    other = {"form": "square", "colour": "green", "pattern": "spotted", "accent": "yellow"}[marked]
    changed = Marks(
        **{kind: other if kind == marked else getattr(base, kind) for kind in ("form", "colour", "pattern", "accent")}
    )
    assert base.differing(changed) == 1
    images = [sprite("dog", look, 60, random.Random(3)).convert("RGB").resize((60, 60)) for look in (base, changed)]
    assert np.abs(np.asarray(images[0]).astype(int) - np.asarray(images[1]).astype(int)).mean() > 2


@pytest.mark.parametrize(
    ("layout", "size"), [("row", (288, 96)), ("column", (96, 288)), ("grid", (192, 192)), ("free", (192, 192))]
)
def test_scenes_keep_things_apart_and_ordered_left_to_right(layout: str, size: tuple[int, int]) -> None:
    looks = list(species("mammal")[:3])
    scene = world.make_scene(11, "mammal", looks, layout)
    assert scene.image.size == size
    assert {thing.name for thing in scene.things} == {one.name for one in looks}
    centres = [thing.box.center[0] for thing in scene.things]
    assert centres == sorted(centres)
    for index, thing in enumerate(scene.things):
        for other in scene.things[index + 1 :]:
            a, b = thing.box, other.box
            assert a.x2 <= b.x1 or b.x2 <= a.x1 or a.y2 <= b.y1 or b.y2 <= a.y1
