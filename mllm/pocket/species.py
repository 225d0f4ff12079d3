"""The species of the pocket world: ten domains of thirty, sisters one or two field marks apart.

A species is a name (genus and epithet) and four visible field marks: form, colour, pattern and the accent colour of
one part. Three sister species make a genus: they share the genus name and most marks. Names give no hint of the marks.
Everything here is deterministic, with the same names and marks on every machine, because the committed weights have
memorised them.
"""

from __future__ import annotations

import random
from dataclasses import astuple, dataclass
from functools import cache
from typing import Literal

from mllm.errors import FieldmarkError

FORMS = ("round", "wide", "tall", "square", "pointed", "scalloped")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
PATTERNS = ("plain", "striped", "spotted", "banded")
KINDS = ("form", "colour", "pattern", "accent")
"""The marks of a thing, in the order of the fields of ``Marks``."""
MARK_VALUES = (FORMS, COLOURS, PATTERNS, COLOURS)
"""The values of each kind of mark."""
KIND_OF = {word: kind for kind, words in zip(KINDS, MARK_VALUES[:3], strict=False) for word in words}
"""The kind of a mark in words; an accent, as in ``blue cap``, is not listed."""

SEEN_DOMAINS = ("aircraft", "car", "reptilia", "bird", "food")
UNSEEN_DOMAINS = ("dog", "mollusca", "mammal", "flower", "landmark")
DOMAINS = SEEN_DOMAINS + UNSEEN_DOMAINS

ACCENT_PARTS: dict[str, str] = dict(
    zip(DOMAINS, "wings roof crest cap topping ears foot tail petals dome".split(), strict=True)
)
"""The part of a thing that carries its accent colour, by domain."""

NOUNS = {domain: domain for domain in DOMAINS} | {"reptilia": "reptile", "mollusca": "mollusc"}

GENERA_PER_DOMAIN = 10
SISTERS_PER_GENUS = 3
_WORLD_SEED = 2503_12797
_EPITHETS = (
    "vina toru meska lorin dapo hesta quill bremo sanda ilvo karet numi pelda rasko timbe "
    "umbra velo wexa yarri zeno corvi dunna elphi fosta gilda hanno ister jovi kesta lumo"
).split()

Use = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Marks:
    """The four field marks of one thing."""

    form: str
    colour: str
    pattern: str
    accent: str

    def phrases(self, domain: str) -> tuple[str, ...]:
        """Return the marks as words, for instance ``("round", "red", "striped", "blue cap")``."""
        return (self.form, self.colour, self.pattern, f"{self.accent} {ACCENT_PARTS[domain]}")

    @property
    def indices(self) -> tuple[int, ...]:
        """The place of each mark among the values of its kind."""
        return tuple(values.index(mark) for values, mark in zip(MARK_VALUES, astuple(self), strict=True))

    def differing(self, other: Marks) -> int:
        """Return in how many of the four marks two things differ, 0..4."""
        return sum(mine != theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True))


@dataclass(frozen=True, slots=True)
class Species:
    """One species: its name, domain, genus, look and use.

    ``use`` is the split that may contain it: ``train`` species are seen in fine-tuning (new images of them are the
    *seen* half of validation and test); ``validation`` and ``test`` species never appear in training images, so
    that choosing a checkpoint on unseen species does not use the unseen species of the benchmark.
    """

    name: str
    domain: str
    genus: str
    look: Marks
    use: Use

    @property
    def marks(self) -> tuple[str, ...]:
        """The four marks as words."""
        return self.look.phrases(self.domain)


def random_marks(rng: random.Random) -> Marks:
    """Draw any possible look; the accent always differs from the main colour, so that it is visible."""
    colour = rng.choice(COLOURS)
    accent = rng.choice([other for other in COLOURS if other != colour])
    return Marks(rng.choice(FORMS), colour, rng.choice(PATTERNS), accent)


def sister_marks(base: Marks, changes: int, rng: random.Random) -> Marks:
    """Draw a look that differs from ``base`` in exactly ``changes`` marks."""
    while True:
        other = random_marks(rng)
        kinds = rng.sample(KINDS, changes)
        mixed = Marks(*(getattr(other if kind in kinds else base, kind) for kind in KINDS))
        if mixed.colour != mixed.accent and mixed.differing(base) == changes:
            return mixed


def _genus_names(count: int, rng: random.Random) -> list[str]:
    onsets, vowels, ends = "b d f g k l m n p r s t v z br dr kr pl st tr".split(), "aeiou", "l m n r s x th nd".split()
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(map(rng.choice, (onsets, vowels, onsets, vowels, ends))).capitalize()] = None
    return list(names)


@cache
def _all_species() -> tuple[Species, ...]:
    rng = random.Random(_WORLD_SEED)
    genera = iter(_genus_names(GENERA_PER_DOMAIN * len(DOMAINS), rng))
    found: list[Species] = []
    for domain in DOMAINS:
        taken: set[Marks] = set()
        for genus_index in range(GENERA_PER_DOMAIN):
            genus = next(genera)
            looks = _sister_looks(taken, rng)
            epithets = rng.sample(_EPITHETS, SISTERS_PER_GENUS)
            for sister_index, (epithet, look) in enumerate(zip(epithets, looks, strict=True)):
                use: Use = "test"
                if domain in SEEN_DOMAINS:  # one sister of every genus is held out, every third of those to validate
                    held_out: Use = "validation" if genus_index % 3 == 0 else "test"
                    use = held_out if sister_index == genus_index % SISTERS_PER_GENUS else "train"
                found.append(Species(f"{genus} {epithet}", domain, genus, look, use))
    return tuple(found)


def _sister_looks(taken: set[Marks], rng: random.Random) -> list[Marks]:
    """Draw three new looks for a domain, the second and third one or two marks away from the first."""
    while True:
        base = random_marks(rng)
        looks = [base, sister_marks(base, 1, rng), sister_marks(base, rng.choice((1, 2)), rng)]
        if len(set(looks)) == SISTERS_PER_GENUS and not taken.intersection(looks):
            taken.update(looks)
            return looks


def species(domain: str | None = None) -> tuple[Species, ...]:
    """Return all 300 species, or the thirty of one domain; an unknown domain raises FieldmarkError."""
    if domain is None:
        return _all_species()
    if domain not in DOMAINS:
        raise FieldmarkError(f"unknown pocket domain {domain!r}; the pocket world has {', '.join(DOMAINS)}")
    return tuple(one for one in _all_species() if one.domain == domain)


def find(name: str) -> Species:
    """Return the species of that name; an unknown name raises FieldmarkError with a few known ones."""
    found = next((one for one in _all_species() if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in _all_species()[:3])
        raise FieldmarkError(f"unknown pocket species {name!r}; known are for instance {known}")
    return found


def sisters(one: Species) -> tuple[Species, ...]:
    """Return the other species of its genus."""
    return tuple(other for other in species(one.domain) if other.genus == one.genus and other.name != one.name)
