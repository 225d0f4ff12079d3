"""Knowledge cards (`mllm.knowledge.card_files` describes the files): each entity's field marks, and its look-alikes.

Names are compared as `mllm.knowledge.names` says. Where two cards could be meant, that is an error.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, TypeVar

from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write
from mllm.knowledge import card_files
from mllm.knowledge.card_files import Card, KnowledgeError, Mark
from mllm.knowledge.names import Spelling, normalize_name, spelling

_FUNCTION_WORDS = frozenset("a an and are at by can has have in is it its of on or that the to with often very".split())
_SAME = 0.5
"""Word overlap from which two marks count as the same."""

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

V = TypeVar("V")


class ByName(Mapping[str, V]):
    """Values by entity. Names are compared by `normalize_name`, and iterated over as they were written."""

    what: ClassVar[str] = "value"
    error: ClassVar[type[FieldmarkError]] = KnowledgeError

    def __init__(self, values: Mapping[str, V], origin: str) -> None:
        """Take values by name; `origin` (a file name) is named in errors."""
        self.origin = origin
        self._names = one_spelling(values, origin, self.error)
        self._values = {normalize_name(name): value for name, value in values.items()}

    def key(self, name: str) -> str | None:
        """Return the normalized name of the entity that `name` stands for; None for one without a value."""
        key = normalize_name(name)
        return key if key in self._values else None

    def __getitem__(self, name: str) -> V:
        if (key := self.key(name)) is None:
            near = [
                self._names[other] for other in get_close_matches(normalize_name(name), self._names, n=3, cutoff=0.5)
            ]
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise self.error(f"{self.origin}: no {self.what} for {name!r} among its {len(self)} entities{hint}")
        return self._values[key]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.key(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.values())

    def __len__(self) -> int:
        return len(self._names)


class Cards(ByName[tuple[str, ...]]):
    """The usable marks of each entity."""

    what = "card"

    def __init__(self, cards: Mapping[str, Iterable[str] | Card], origin: str = "the cards") -> None:
        whole = {
            n: card if isinstance(card, Card) else Card(n, marks=tuple(map(Mark, card))) for n, card in cards.items()
        }
        super().__init__({name: card.used for name, card in whole.items()}, origin)
        self._cards = {normalize_name(name): card for name, card in whole.items()}
        self._alike: dict[str, list[Spelling]] = defaultdict(list)
        for key, name in self._names.items():
            written = spelling(name)
            self._alike[written.core].append(replace(written, key=key))

    def key(self, name: str) -> str | None:
        """Find a card by the tolerant rule of this module. Raises `KnowledgeError`: two cards could be meant."""
        if (key := super().key(name)) is not None:
            return key
        written = spelling(name)
        found = [other.key for other in self._alike.get(written.core, ()) if written.core and written.fits(other)]
        if len(found) > 1:
            both = " or ".join(repr(self._names[key]) for key in found)
            raise self.error(f"{self.origin}: {name!r} could be {both}; write the name as it stands there")
        return found[0] if found else None

    def card(self, name: str) -> Card:
        """Return the whole card of an entity."""
        self[name]
        return self._cards[self.key(name) or ""]

    def confused_with(self, name: str) -> frozenset[str]:
        """Return the entities that are easily confused with `name` by either card, as normalized names."""
        own = self.same(name)
        named = {self.same(other) for other in self._cards[own].unlike} if own in self._cards else set()
        return frozenset(named | {key for key, card in self._cards.items() if own in map(self.same, card.unlike)})

    def differences(self, name: str, other: str) -> tuple[tuple[str, ...], ...]:
        """Return pairs (mark of `name`, mark of `other`) that distinguish the two, as far as the cards list them."""
        for own, its, swap in ((name, other, False), (other, name, True)):
            card = self._cards.get(self.same(own))
            for entity, pairs in card.unlike.items() if card else ():
                if self.same(entity) == self.same(its):
                    return tuple((pair[1], pair[0]) if swap else pair for pair in pairs)
        return ()

    def same(self, name: str) -> str:
        """Return the form in which names are equal if they stand for one entity: the card's name, else its own."""
        return self.key(name) or normalize_name(name)


def one_spelling(
    names: Iterable[str],
    origin: str,
    kind: type[FieldmarkError] = KnowledgeError,
    same: Callable[[str], str] = normalize_name,
) -> dict[str, str]:
    """Return names by their form `same`; two names that have the same one are an error ("F-16A" and "F/16A")."""
    found: dict[str, str] = {}
    for name in names:
        if (first := found.setdefault(same(name), name)) != name:
            raise kind(f"{origin}: {name!r} and {first!r} are the same name; keep one")
    return found


def load_cards(*files: str | Path) -> Cards:
    """Read card files, or folders of them, into one set of cards. An entity may occur in one file only."""
    cards: dict[str, Card] = {}
    known: set[str] = set()
    for file in card_files.files_of(files):
        found = card_files.read(file)
        for name in found:
            if normalize_name(name) in known:
                raise KnowledgeError(f"{file}: {name!r} has a card in an earlier file too; keep one")
        known |= {normalize_name(name) for name in found}
        cards |= found
    return Cards(cards, ", ".join(str(file) for file in files))


def save_cards(file: str | Path, cards: Mapping[str, Iterable[str]]) -> None:
    """Write cards atomically as json, in the order of their names."""
    with atomic_write(file) as out:
        json.dump({name: list(cards[name]) for name in sorted(cards)}, out, ensure_ascii=False, indent=1)
        out.write("\n")


def word_overlap(a: Iterable[str], b: Iterable[str]) -> float:
    """Return the similarity of two lists of marks, 0..1: shared content words over all content words (Jaccard)."""
    words_a, words_b = content_words(a), content_words(b)
    return len(words_a & words_b) / max(len(words_a | words_b), 1)


def has_mark(card: Iterable[str], mark: str) -> bool:
    """Whether a card holds `mark`, in these or similar words."""
    return any(word_overlap([mark], [other]) >= _SAME for other in card)


def content_words(marks: Iterable[str]) -> frozenset[str]:
    """Return the words of marks, normalized as names are, without function words."""
    return frozenset(word for mark in marks for word in normalize_name(mark).split()) - _FUNCTION_WORDS


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
