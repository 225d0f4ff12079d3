"""The part of a thing that a mark describes, taken from its words: `long, hooked bill` is about the bill."""

from __future__ import annotations

from mllm.knowledge.cards import normalize_name

PARTS = frozenset(
    # animals
    "beak bill head crown cap crest face forehead eye eyebrow ear muzzle snout nose mouth tongue whisker cheek throat "
    "neck nape collar ruff mane breast chest belly back flank side rump body wing feather plumage coat fur hair skin "
    "leg foot paw toe claw hoof tail horn antler antenna shell scale fin spine foot shoulder "
    # plants
    "petal flower stem leaf stamen pistil sepal bud seed root thorn centre center fruit "
    # machines
    "engine cockpit fuselage winglet stabilizer propeller window door roof grille headlight taillight bumper hood "
    "wheel tire spoiler mirror badge trunk fender exhaust "
    # buildings and food
    "tower dome column arch facade spire wall crust topping filling sauce layer bun".split()
)
_PLURALS = {"feet": "foot", "leaves": "leaf", "hooves": "hoof", "antennae": "antenna"}


def part_of(mark: str) -> str:
    """Return the part that a mark describes: the last one it names, since English puts the noun last; "" for none.

    Words after a preposition count only if no part stands before it: `black feet with white claws` is about the feet,
    `a red spot on the bill` about the bill.
    """
    words = normalize_name(mark).split()
    for stop in ("with", "without", "on", "of", "around", "above", "below", "under"):
        if stop in words and (found := _last(words[: words.index(stop)])):
            return found
    return _last(words)


def _last(words: list[str]) -> str:
    for word in reversed(words):
        for form in (word, _PLURALS.get(word, word), word.removesuffix("s"), word.removesuffix("es")):
            if form in PARTS:
                return form
    return ""
