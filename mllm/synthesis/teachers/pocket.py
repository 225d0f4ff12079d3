"""The pocket oracle: has every capability of a teacher, from the pocket world's own facts. It is never wrong.

It judges the things from left to right and names the number that matches with its box again: looking up the box of a
number was the hardest step for a small model.
"""

import random
import re
from collections.abc import Sequence

from mllm.boxes import Box
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.knowledge import domains
from mllm.pocket import world
from mllm.pocket.captions import claims, fits, merge, rich
from mllm.pocket.pretraining_tasks import judged
from mllm.pocket.species import ACCENT_PARTS, COLOURS, FORMS, KINDS, NOUNS, PATTERNS, find, species
from mllm.records import REFERENCE, Sample
from mllm.synthesis.capabilities import Look, ReasoningRequest
from mllm.synthesis.thoughts import targets

MOST_COMPARED = 3
"""Names that a thought compares before it names a thing."""
DESCRIBED = ("A {noun}: {marks}.", "This {noun} shows: {marks}.", "What can be seen of the {noun}: {marks}.")
_SLOTS = {mark: slot for slot, marks in (("form", FORMS), ("colour", COLOURS), ("pattern", PATTERNS)) for mark in marks}
_SLOTS |= {f"{colour} {part}": part for colour in COLOURS for part in ACCENT_PARTS.values()}
_MARK = re.compile(rf"\b(?:{'|'.join(sorted(_SLOTS, key=len, reverse=True))})\b")


class Teacher:
    """Teacher interface over the pocket world."""

    def reason(self, request: ReasoningRequest) -> str:
        """Write a thought. Raises FieldmarkError if a thing is not of the pocket world or the question does not fit."""
        sample = request.sample
        if sample.task == "name":
            return name_thought(request, find(sample.entity).marks)
        order, sought = order_of(sample), recalled(sample)
        looked = [judged(find(sample.things[index].entity).marks, sought) for index in order]
        return write(sample, sought, looked, order, chosen(sample))

    def marks(self, entity: str, domain: str) -> tuple[str, ...]:
        """Return the four marks of a species; for the domain's noun, all marks that occur; otherwise none."""
        if entity == NOUNS.get(domain):
            accents = tuple(f"{colour} {ACCENT_PARTS[domain]}" for colour in COLOURS)
            return (*FORMS, *COLOURS, *PATTERNS, *accents)
        return next((one.marks for one in species(domain) if one.name == entity), ())

    def differences(self, entity: str, other: str, domain: str) -> tuple[tuple[str, str], ...]:
        """Return the marks in which two species differ (form, colour, pattern, accent); empty if either is unknown."""
        both = zip(self.marks(entity, domain), self.marks(other, domain), strict=False)
        return tuple((mine, theirs) for mine, theirs in both if mine != theirs)

    def sees(self, look: Look, marks: Sequence[str]) -> tuple[bool | None, ...]:
        """Return whether each mark, or each phrase's marks, are among the facts; None for words without a mark."""
        facts, verdicts = _facts(look), []
        for mark in marks:
            if mark in facts or mark in _SLOTS:
                verdicts.append(mark in facts)
            else:
                found = claims(mark)
                known = any(one.marks for one in found)
                verdicts.append(fits(found, look.domain, _things(look)) if known else None)
        return tuple(verdicts)

    def describe(self, look: Look, *, seed: int = 0) -> str:
        """Return all facts in one sentence, worded by seed; for a scene of several things, one sentence each."""
        if len(things := _things(look)) > 1:
            return rich(look.domain, things)
        wording = random.Random(f"describe/{seed}").choice(DESCRIBED)
        return wording.format(noun=domains.load(look.domain).noun, marks=", ".join(_facts(look)))

    def point(self, look: Look, entity: str, *, seed: int = 0) -> tuple[Box, ...]:
        """Return the thing's box if its facts are those of the species; otherwise none. The seed is ignored.

        Without `look.box`, the box encloses what differs from the background: exact on photos of one thing only.
        """
        if tuple(_facts(look)) != self.marks(entity, look.domain):
            return ()
        found = look.box or world.departure(open_image(look.image), look.domain)
        return () if found is None else (found,)

    def blend(self, captions: Sequence[str], *, seed: int = 0) -> str:
        """Return the first caption with the marks of the others, and their sentences that hold no marks."""
        if not captions:
            raise FieldmarkError("blend needs at least one caption")
        if _several(*captions):
            whole = merge(captions)
        else:
            whole = captions[0].strip()
            for caption in captions[1:]:
                whole = self.expand(whole, caption)
        for sentence in (one for caption in captions[1:] for one in re.split(r"(?<=[.!?])\s+", caption.strip())):
            if not _MARK.search(sentence) and sentence not in whole:
                whole += f" {sentence}"
        return whole

    def expand(self, caption: str, description: str, *, seed: int = 0) -> str:
        """Return the caption with the description's marks that it does not cover, thing by thing."""
        if _several(caption, description):
            return merge([caption, description])
        covered = {_SLOTS[mark] for mark in _MARK.findall(caption)}
        new = [mark for mark in dict.fromkeys(_MARK.findall(description)) if _SLOTS[mark] not in covered]
        return f"{caption.strip().rstrip('.')}, {', '.join(new)}." if new else caption.strip()


def order_of(sample: Sample) -> list[int]:
    """Return the indices of a sample's things from left to right, the order in which thoughts number them."""
    return sorted(range(len(sample.things)), key=lambda index: sample.things[index].box.center[0])


def chosen(sample: Sample) -> list[int]:
    """Return the numbers, from 1, of the things that are asked for.

    Raises FieldmarkError: a question for one thing that several or none fit.
    """
    found = [number for number, index in enumerate(order_of(sample), 1) if index in targets(sample)]
    if len(found) != 1 and sample.boxes and sample.task != "ground_all":
        count = f"{len(found)} things are {sample.entity!r}"
        raise FieldmarkError(f"sample {sample.id}: {count}; the oracle points at exactly one")
    return found


def recalled(sample: Sample) -> tuple[str, ...]:
    """Return the marks that candidates are compared with: those asked for, otherwise the species'."""
    return sample.asked or find(sample.entity).marks


def write(
    sample: Sample, sought: Sequence[str], looked: Sequence[str], order: Sequence[int], numbers: Sequence[int]
) -> str:
    """Write a thought: what is sought, what each candidate shows (`looked`, in `order`), the numbers chosen."""
    # Verdicts stand beside what they judge: a small model that only gave a number at the end picked at random.
    listed = (f"{n} <obj:{index}>: {look}." for n, (index, look) in enumerate(zip(order, looked, strict=False), 1))
    ending = ", ".join(f"{number} <obj:{order[number - 1]}>" for number in numbers) or "none"
    subject = "marks" if sample.asked else sample.entity
    return " ".join((f"{subject}: {', '.join(sought)}.", *listed, f"So {ending}."))


def name_thought(request: ReasoningRequest, seen: Sequence[str], *, hasty: bool = False) -> str:
    """Write a thought that looks, recalls the names that may fit and compares each, and ends on the one that fits best.

    `seen` are the marks of the thing asked about; a hasty thought looks and names.
    """
    sample = request.sample
    own = find(sample.entity)
    others = sorted({*sample.options} - {own.name}, key=lambda name: (own.look.differing(find(name).look), name))
    names = [own.name, *others[: MOST_COMPARED - 1]]
    random.Random(f"{request.seed}/{sample.id}").shuffle(names)
    best = max(names, key=lambda name: len({*find(name).marks} & {*seen}))
    compared = [] if hasty else [f"{name}: {judged(find(name).marks, seen)}." for name in names]
    place = REFERENCE.search(sample.question)
    head = f"{place[0] if place else 'marks'}: {', '.join(seen)}."
    return " ".join((head, *compared, f"So {own.name if hasty else best}."))


def _things(look: Look) -> list[tuple[str, ...]]:
    """Return the facts of each thing; a thing has one mark of each kind."""
    facts = _facts(look)
    return [facts[start : start + len(KINDS)] for start in range(0, len(facts), len(KINDS))]


def _several(*captions: str) -> bool:
    return any(sum(bool(one.marks) for one in claims(caption)) > 1 for caption in captions)


def _facts(look: Look) -> tuple[str, ...]:
    if not look.facts:
        raise FieldmarkError(
            f"{look.image}: the pocket oracle answers from the facts of a drawn image, and this one has none; "
            f"use a teacher that looks at images (`openai`, `local`)"
        )
    return look.facts
