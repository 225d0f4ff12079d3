"""Bags of look-alikes of the pocket world: scenes that differ only slightly, deterministic by seed."""

import random

from mllm.errors import FieldmarkError
from mllm.pocket.species import DOMAINS, Marks, random_marks, sister_marks
from mllm.pocket.world import Scene, make_scene

LEVELS = ("easy", "medium", "hard")
"""What the scenes of a bag share: the domain; all but two or three marks of each; all but one mark of one thing."""
COUNTS = (1, 2, 2, 3)
"""How many things a scene holds, drawn uniformly from this list; the scenes of one bag hold equally many."""
MOST = 20
"""The largest bag; every look has more neighbours than this one mark away."""


def look_alikes(seed: int | str, size: int, level: str = "hard", count: int | None = None) -> tuple[Scene, ...]:
    """Draw a bag of ``size`` scenes, 192 pixels square, no two with the same things.

    Args:
        seed: decides the bag.
        size: 1 to 20 scenes.
        level: one of ``LEVELS``.
        count: things in each scene, 1 to 4; None: drawn at random.

    Raises:
        FieldmarkError: an unknown level, or a size out of range.
    """
    if level not in LEVELS:
        raise FieldmarkError(f"unknown level {level!r} of pocket bags; known are {', '.join(LEVELS)}")
    if not 1 <= size <= MOST:
        raise FieldmarkError(f"a pocket bag holds 1 to {MOST} scenes, not {size}")
    rng = random.Random(f"bag/{seed}/{size}/{level}")
    domain, count = rng.choice(DOMAINS), count or rng.choice(COUNTS)
    base = _distinct(count, rng)
    scenes: list[list[Marks]] = []
    taken: set[frozenset[Marks]] = set()
    while len(scenes) < size:
        looks = list(base)
        if scenes and level == "easy":
            looks = _distinct(count, rng)
        elif scenes:
            for _ in range(1 if level == "hard" else rng.choice((2, 3))):
                place = rng.randrange(count)
                looks[place] = sister_marks(looks[place], 1, rng)
        if len(set(looks)) == count and frozenset(looks) not in taken:
            taken.add(frozenset(looks))
            scenes.append(looks)
    rng.shuffle(scenes)
    return tuple(
        make_scene(f"bag/{seed}/{size}/{level}/{number}", domain, looks, "free") for number, looks in enumerate(scenes)
    )


def _distinct(count: int, rng: random.Random) -> list[Marks]:
    looks: list[Marks] = []
    while len(looks) < count:
        if (look := random_marks(rng)) not in looks:
            looks.append(look)
    return looks
