"""Probes what a model knows about entities. Questions are samples of task `quiz`; graders read the completions.

choices  An image of one thing and names, the right one and look-alikes (three), in a random order: "Which bird is
         this? A. ... B. ...". This is KARL's form (arXiv 2503.12797v3, appendix B.2).
marks    For models that were not trained on letters (the pocket base): "What are the marks of NAME?" for each of the
         four names and "What is at BOX?" for the thing. The choice is the name whose recalled marks share most with
         the marks seen. A model that writes neither marks nor boxes fails it.
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mllm.boxes import Box, Frame
from mllm.errors import FieldmarkError
from mllm.knowledge import domains
from mllm.models.families import Budget, Family
from mllm.prompting import questions as wordings
from mllm.prompting.tasks.quiz import read_choice
from mllm.records import Completion, Photo, Sample, Thing

OPTIONS = 4
"""Names in a question of KARL's form."""
CHANCE = 1 / OPTIONS


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to ask about: where it is, and the other entities of its image."""

    id: str
    entity: str
    domain: str
    image: str
    size: Frame
    box: Box
    beside: tuple[str, ...] = ()


def items(rows: Iterable[Sample | Photo]) -> list[Item]:
    """Return every thing in the images of samples or photos, each once."""
    found: dict[tuple[str, Box], Item] = {}
    rows = list(rows)
    domain_of = {row.entity: row.domain for row in rows if isinstance(row, Sample)}
    for row in rows:
        if isinstance(row, Photo):
            things = [(thing.kind, thing.box) for thing in row.things if thing.box is not None]
            kinds = row.kinds
        else:
            named = [(thing.entity, thing.box) for thing in row.things] or [(row.entity, box) for box in row.boxes]
            things = [((domain_of.get(name, row.domain), name), box) for name, box in named]
            kinds = tuple(dict.fromkeys(kind for kind, _ in things))
        for (domain, name), box in things:
            beside = tuple(other for _, other in kinds if other != name)
            item = Item(f"{row.image}#{len(found)}", name, domain, row.image, row.size, box, beside)
            found.setdefault((row.image, box), item)
    return list(found.values())


def one_an_image(pool: Sequence[Item]) -> list[Item]:
    """Return one item per image, without the images of several entities."""
    return list({item.image: item for item in reversed(pool) if not item.beside}.values())[::-1]


def draw(pool: Sequence[Item], per_entity: int, seed: int) -> list[Item]:
    """Choose at most `per_entity` random things of each entity, in the order of `pool`."""
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
    item: Item,
    entities: Sequence[str],
    seed: int,
    alike: Mapping[str, Sequence[str]] | None = None,
    count: int = OPTIONS,
) -> list[str]:
    """Return the `count` names of a question in random order: the item's own and look-alikes.

    The other entities of its image and domain are preferred (they were put there as look-alikes), then those that
    `alike` lists for it, then random others of `entities`, the names of its domain. Raises `FieldmarkError`: fewer
    than `count` entities.
    """
    rng = random.Random(f"{seed}/{item.id}/{item.entity}")
    known = set(entities)
    beside = [other for other in item.beside if other in known]
    beside = rng.sample(beside, len(beside))
    others = rng.sample(list(entities), len(entities))
    ordered = dict.fromkeys([*beside, *(alike or {}).get(item.entity, ()), *others])
    wrong = [name for name in ordered if name != item.entity][: count - 1]
    if len(wrong) < count - 1:
        raise FieldmarkError(f"domain {item.domain!r} has {len(wrong) + 1} entities; a question needs {count}")
    return rng.sample([item.entity, *wrong], count)


def nearest_cards(entity: str, others: Sequence[str], cards: Mapping[str, Sequence[str]]) -> list[str]:
    """Sort other entities by the number of marks shared with an entity, most first; those without a card last."""
    own = set(cards[entity]) if entity in cards else set()
    shared = {name: len(own & set(cards[name])) if name in cards else 0 for name in others if name != entity}
    return sorted(shared, key=lambda name: -shared[name])


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
    count: int = OPTIONS,
    boxed: bool = False,
) -> list[Sample]:
    """Write one question with `count` names for each item: about its box, or its image, which should show it alone.

    `entities` are the names of each domain, from which wrong options are drawn.
    """
    questions = []
    for item in chosen:
        names = options(item, entities[item.domain], seed, alike, count)
        question = wordings.naming(domains.noun(item.domain), _place(boxed), names)
        questions.append(_sample(item, f"choose {item.id}", question, names))
    return questions


def open_questions(
    chosen: Sequence[Item], entities: Mapping[str, Sequence[str]], *, boxed: bool = False
) -> list[Sample]:
    """Ask of each item, openly, what it is: of its box, or of its image, which should show it alone."""
    questions = []
    for item in chosen:
        question = wordings.naming(domains.noun(item.domain), _place(boxed))
        sample = _sample(item, f"name {item.id}", question, entities[item.domain])
        questions.append(replace(sample, task="name"))
    return questions


def grade_choices(questions: Sequence[Sample], completions: Mapping[str, Completion]) -> list[tuple[str, float]]:
    """Return (entity, 1 or 0) for each question; text with neither a letter nor a name is wrong."""
    rows = []
    for sample in questions:
        names = sample.options
        chosen = read_choice(completions[sample.id].text, names)
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
    """Write the questions for `grade_marks`: for each item what is at its box, and for each name once its marks.

    Boxes are in the notation of `family` for images of `budget`.
    """
    seen, recalled = [], {}
    for item in chosen:
        names = options(item, entities[item.domain], seed, alike)
        box = family.mention(item.box, family.frame(item.size, budget))
        seen.append(_sample(item, f"see {item.id}", f"What is at {box}?", names))
        for name in names:
            sample = _sample(item, f"recall {item.domain} {name}", f"What are the marks of {name}?")
            recalled.setdefault(sample.id, replace(sample, entity=name, boxes=()))
    return [*seen, *recalled.values()]


def grade_marks(questions: Sequence[Sample], completions: Mapping[str, Completion]) -> list[tuple[str, float]]:
    """Return (entity, score) for each thing seen: 1 if its own name's marks fit best, 1/k if k names tie."""
    rows = []
    for sample in questions:
        if not sample.options:
            continue
        seen = _stated_marks(completions[sample.id].text)
        names = sample.options
        fits = [len(seen & _stated_marks(completions[f"recall {sample.domain} {name}"].text)) for name in names]
        own, best = fits[list(names).index(sample.entity)], max(fits)
        rows.append((sample.entity, 1 / fits.count(best) if own == best else 0.0))
    return rows


def _stated_marks(text: str) -> set[str]:
    """Return the marks of `NAME: a, b, c.` or `a, b, c.` in lower case, without a thought before them."""
    marks = text.rpartition("</think>")[2].rpartition(":")[2].strip().rstrip(".").lower()
    return {mark for part in re.split(r"[,;.\n]", marks) if (mark := " ".join(part.split()))}


def _place(boxed: bool) -> str:
    return "at <obj:0>" if boxed else "this"


def _sample(item: Item, name: str, question: str, options: Sequence[str] = ()) -> Sample:
    about = (item.image, item.size, item.domain, item.entity, question, (item.box,))
    more = {"things": (Thing(item.entity, item.box),), "options": tuple(options), "provenance": {"item": item.id}}
    return Sample(name, "quiz", *about, split="test", **more)
