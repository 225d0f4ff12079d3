"""What a model knows, asked: four names to choose from, or marks recalled against marks seen.

Questions are samples (task `quiz`), so that whatever answers samples answers them; graders read the completions. Two
ways to ask about an entity:

choices  An image of one thing and four names, its own among look-alikes', in an order drawn by seed: "Which bird is
         this? A. ... B. ...". KARL asks this (arXiv 2503.12797v3, appendix B.2).
marks    For models that were never taught letters (the pocket base): "What are the marks of NAME?" for each of the four
         names and "What is at BOX?" for the thing. The choice is the name whose recalled marks share most with the
         marks seen. It asks for the same knowledge, and a model that can say neither marks nor boxes fails it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.knowledge import domains
from mllm.models.families import Budget, Family
from mllm.prompting.tasks.quiz import LETTERS, read_choice
from mllm.records import Completion, Photo, Sample

OPTIONS = len(LETTERS)
CHANCE = 1 / OPTIONS


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to be asked about: where it is, and the other entities of its image."""

    id: str
    entity: str
    domain: str
    image: str
    size: Frame
    box: Box
    beside: tuple[str, ...] = ()


def items(rows: Iterable[Sample | Photo]) -> list[Item]:
    """Return every thing of the images of samples, or of photos; one that several samples share comes once."""
    found: dict[tuple[str, Box], Item] = {}
    for row in rows:
        if isinstance(row, Photo):
            things = [(row.entity, box) for box in row.boxes]
        else:
            things = [(thing.entity, thing.box) for thing in row.things] or [(row.entity, box) for box in row.boxes]
        names = tuple(dict.fromkeys(name for name, _ in things))
        for name, box in things:
            beside = tuple(other for other in names if other != name)
            item = Item(f"{row.image}#{len(found)}", name, row.domain, row.image, row.size, box, beside)
            found.setdefault((row.image, box), item)
    return list(found.values())


def one_an_image(pool: Sequence[Item]) -> list[Item]:
    """Return each image once, as a question about its only entity; images of several entities are left out."""
    return list({item.image: item for item in reversed(pool) if not item.beside}.values())[::-1]


def draw(pool: Sequence[Item], per_entity: int, seed: int) -> list[Item]:
    """Choose at most `per_entity` things of each entity, by seed, in the order of `pool`."""
    by_entity: dict[str, list[Item]] = {}
    for item in pool:
        by_entity.setdefault(item.entity, []).append(item)
    kept = {
        item.id
        for name, group in by_entity.items()
        for item in random.Random(f"{seed}/{name}").sample(group, min(per_entity, len(group)))
    }
    return [item for item in pool if item.id in kept]


def options(
    item: Item, entities: Sequence[str], seed: int, alike: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Return the four names of a question in their order: the item's own and three look-alikes.

    Those beside it in its image come first (they were put there because they look alike), then those that `alike`
    lists for it, then others of `entities` (its domain), drawn by seed.

    Raises:
        FieldmarkError: fewer than four entities.
    """
    rng = random.Random(f"{seed}/{item.id}/{item.entity}")
    beside = rng.sample(item.beside, len(item.beside))
    others = rng.sample(list(entities), len(entities))
    ordered = dict.fromkeys([*beside, *(alike or {}).get(item.entity, ()), *others])
    wrong = [name for name in ordered if name != item.entity][: OPTIONS - 1]
    if len(wrong) < OPTIONS - 1:
        raise FieldmarkError(
            f"domain {item.domain!r} has {len(wrong) + 1} entities; a question with {OPTIONS} names needs {OPTIONS}"
        )
    return rng.sample([item.entity, *wrong], OPTIONS)


def nearest_cards(entity: str, others: Sequence[str], cards: Mapping[str, Sequence[str]]) -> list[str]:
    """Sort other entities by how many marks they share with an entity, most first; those without a card last."""
    own = set(cards[entity]) if entity in cards else set()
    shared = {name: len(own & set(cards[name])) if name in cards else 0 for name in others if name != entity}
    return sorted(shared, key=lambda name: -shared[name])


def alone(item: Item, image: str, size: Frame) -> Item:
    """Return the item on an image of its own, `size` pixels large, which it fills."""
    return replace(item, image=image, size=size, box=Box(0, 0, 1, 1))


def by_domain(pool: Iterable[Item]) -> dict[str, list[str]]:
    """Return the entities of each domain, sorted."""
    found: dict[str, set[str]] = {}
    for item in pool:
        found.setdefault(item.domain, set()).add(item.entity)
    return {domain: sorted(names) for domain, names in found.items()}


def choices(
    chosen: Sequence[Item],
    entities: Mapping[str, Sequence[str]],
    seed: int,
    *,
    alike: Mapping[str, Sequence[str]] | None = None,
) -> list[Sample]:
    """Write one question with four names for each item. The image should show that one thing alone.

    `entities` are the names of each domain that wrong options are drawn from.
    """
    asked = []
    for item in chosen:
        names = options(item, entities[item.domain], seed, alike)
        listed = " ".join(f"{letter}. {name}." for letter, name in zip(LETTERS, names, strict=True))
        question = f"Which {_noun(item.domain)} is this? {listed} Answer with the letter."
        asked.append(_sample(item, f"choose {item.id}", question, {"options": names}))
    return asked


def grade_choices(asked: Sequence[Sample], said: Mapping[str, Completion]) -> list[tuple[str, float]]:
    """Return (entity, 1 or 0) for each question; text without a letter or one of the names is wrong."""
    rows = []
    for sample in asked:
        names = sample.provenance["options"]
        chosen = read_choice(said[sample.id].text, names)
        rows.append((sample.entity, float(chosen is not None and names[chosen] == sample.entity)))
    return rows


def marks(
    chosen: Sequence[Item],
    entities: Mapping[str, Sequence[str]],
    seed: int,
    family: Family,
    budget: Budget,
    *,
    alike: Mapping[str, Sequence[str]] | None = None,
) -> list[Sample]:
    """Write what `grade_marks` needs: for each item what is at its box, and once for each name its marks.

    Boxes are written as `family` writes them on images of `budget`.
    """
    seen, recalled = [], {}
    for item in chosen:
        names = options(item, entities[item.domain], seed, alike)
        box = family.mention(item.box, family.frame(item.size, budget))
        seen.append(_sample(item, f"see {item.id}", f"What is at {box}?", {"options": names}))
        for name in names:
            sample = _sample(item, f"recall {item.domain} {name}", f"What are the marks of {name}?", {})
            recalled.setdefault(sample.id, replace(sample, entity=name, boxes=()))
    return [*seen, *recalled.values()]


def grade_marks(asked: Sequence[Sample], said: Mapping[str, Completion]) -> list[tuple[str, float]]:
    """Return (entity, right) for each thing seen: 1 where its own name's marks fit best, 1/k where k names tie."""
    rows = []
    for sample in asked:
        if "options" not in sample.provenance:
            continue
        seen = _stated(said[sample.id].text)
        names = sample.provenance["options"]
        fits = [len(seen & _stated(said[f"recall {sample.domain} {name}"].text)) for name in names]
        own, best = fits[list(names).index(sample.entity)], max(fits)
        rows.append((sample.entity, 1 / fits.count(best) if own == best else 0.0))
    return rows


def _stated(text: str) -> set[str]:
    """Return the marks of `NAME: a, b, c.` or `a, b, c.`: what stands between commas, in lower case."""
    told = text.rpartition(":")[2].strip().rstrip(".").lower()
    return {mark for part in re.split(r"[,;.\n]", told) if (mark := " ".join(part.split()))}


def _noun(domain: str) -> str:
    """Return what one thing of a domain is called; the domain's own name where it has no file."""
    return domains.load(domain).noun if domain in domains.names() else domain


def _sample(item: Item, name: str, question: str, provenance: dict[str, Any]) -> Sample:
    """Make a question about an item."""
    return Sample(
        id=name,
        task="quiz",
        image=item.image,
        size=item.size,
        domain=item.domain,
        entity=item.entity,
        question=question,
        boxes=(item.box,),
        split="test",
        provenance={"item": item.id, **provenance},
    )
