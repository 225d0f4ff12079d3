"""Reasoning composed from knowledge cards and boxes, without a model: recall, look at each, compare, conclude.

Every mark is quoted from a card, which is knowledge about a kind, not about this image: wrong cards teach wrong things.
With card files (`files`) it also knows marks of entities. It merges captions by rules: the result reads like notes.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from mllm.captions import clauses
from mllm.config import Section
from mllm.errors import FieldmarkError
from mllm.knowledge.cards import Cards, has_mark, load_cards, part_of, word_overlap
from mllm.metrics import claims
from mllm.prompting.questions import listed
from mllm.records import REFERENCE
from mllm.synthesis.capabilities import ReasoningRequest
from mllm.synthesis.thoughts import targets

MOST_MARKS = 4
"""Maximum number of marks recalled, and quoted for each candidate."""

RECALL = (
    "What tells {name} apart: {marks}.",
    "{name}. Its field marks: {marks}.",
    "First, what I know of {name}: {marks}.",
    "To find {name}, look for these marks: {marks}.",
    "I recall how {name} looks: {marks}.",
)
TURN = (
    "Now the candidates, from left to right.",
    "There are {count} candidates.",
    "Let me look at all {count} in turn.",
    "I go through them one by one.",
    "",
)
LOOK = (
    "{ordinal}, {box}: {marks}.",
    "{ordinal} comes {box}, and it shows: {marks}.",
    "At {box} I see: {marks}.",
    "{ordinal} there is {box}. Its marks: {marks}.",
)
NAMED = (" This looks like {name}.", " That fits {name}.", " The look of {name}.")
FITS = (" That agrees with what I look for.", " These are the marks I recalled.", " This one matches.")
OTHER = (
    " Where I look for {missing}, it has: {its}.",
    " Against {missing} stands here: {its}.",
    " What I recall is {missing}; what it has is {its}.",
)
UNKNOWN = (
    " Not among its marks: {missing}.",
    " It is not known for: {missing}.",
    " Its marks do not include: {missing}.",
)
COMPARE = (
    "Comparing them, only one is known for: {own}.",
    "What decides between them: {own}.",
    "Side by side, one mark stands out: {own}.",
)
COMPARE_ALL = ("They share what no other is known for: {own}.", "What sets them apart from the rest: {own}.")
CLOSE = ("They are much alike; the whole of the marks has to decide.", "No single mark decides, their sum does.")
CONCLUDE = (
    "So {name} is {boxes}.",
    "Therefore I point at {boxes}.",
    "That makes it {boxes}.",
    "The match is {boxes}.",
    "My choice is {boxes}.",
)
BY_MARKS = ("What is asked for: {marks}.", "I look for these marks: {marks}.", "The description says: {marks}.")
UNLIKE = ("Unlike {other} ({its}), it shows: {own}.", "{other} would show {its}; here it is {own}.")
SEEN = ("{here} I see: {marks}.", "{here} these marks show: {marks}.", "What shows {lower}: {marks}.")
KNOWN = ("I recall {name}: {marks}.", "{name} has these marks: {marks}.", "What I know of {name}: {marks}.")
NAME = ("So it is {name}.", "Therefore this is {name}.", "That makes it {name}.")
CONCLUDE_ALL = ("So {name} is at {boxes}.", "Therefore I point at {boxes}.", "All of this kind: {boxes}.")
CONCLUDE_NONE = (
    "So none of them is {name}.",
    "Therefore {name} is not in this image.",
    "None of the candidates fits: no {name} here.",
)
ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth")


class Config(Section):
    """Settings of the teacher."""

    files: tuple[Path, ...] = Field(default=())
    """Files of knowledge cards, for `marks` and `differences`; reasoning requests bring their own."""


class Teacher:
    """Teacher interface over knowledge cards."""

    def __init__(self, config: Config | None = None) -> None:
        """Read the card files, if any. Raises `KnowledgeError` naming file and entity."""
        self._cards = load_cards(*config.files) if config is not None and config.files else Cards({})

    def marks(self, entity: str, domain: str) -> tuple[str, ...]:
        """Return the marks of an entity's card; empty without a card. The domain is ignored."""
        return self._cards[entity] if entity in self._cards else ()

    def differences(self, entity: str, other: str, domain: str) -> tuple[tuple[str, str], ...]:
        """Pair the marks that only one of two cards has, the most alike in words first ("red bill", "black bill")."""
        mine, theirs = self.marks(entity, domain), self.marks(other, domain)
        left = [mark for mark in mine if not has_mark(theirs, mark)]
        right = [mark for mark in theirs if not has_mark(mine, mark)]
        pairs: list[tuple[str, str]] = []
        while left and right:  # a mark without a partner is left out: the other card says nothing about it
            best = max(((a, b) for a in left for b in right), key=lambda pair: word_overlap([pair[0]], [pair[1]]))
            pairs.append(best)
            left.remove(best[0])
            right.remove(best[1])
        return tuple(pairs)

    def blend(self, captions: Sequence[str], *, seed: int = 0) -> str:
        """Return the caption with the most details, followed by what the others add, one sentence each.

        Where people give a thing different colours or numbers, the majority's version is used, the first one on ties.
        """
        written = [" ".join(caption.split()) for caption in captions]
        if not any(written):
            raise FieldmarkError("a blend needs at least one caption")
        settled = [claims.settled(caption, written) for caption in written]
        first = max(range(len(settled)), key=lambda index: len(claims.details(settled[index])))
        merged = _append(settled[first], settled[:first] + settled[first + 1 :])
        for clause in (clause for caption in settled for clause in clauses(caption)):
            longer = f"{merged} {_sentence(clause)}"
            if claims.kept_share(written, longer) > claims.kept_share(written, merged):  # same words, the winning claim
                merged = longer
        return merged

    def expand(self, caption: str, description: str, *, seed: int = 0) -> str:
        """Return the caption followed by what a description adds; where the two disagree, the caption wins."""
        trusted = " ".join(caption.split())
        return _append(trusted, [claims.settled(description, [trusted, description])])

    def reason(self, request: ReasoningRequest) -> str:
        """Write one thought. Raises `KnowledgeError` (from the cards) for an entity without a card."""
        rng = random.Random(f"cards/{request.seed}/{request.sample.id}")
        if request.sample.task == "name":
            return _name_thought(request, rng)
        sample, chosen, asked = request.sample, targets(request.sample), request.sample.asked
        cards = [request.cards[thing.entity] for thing in sample.things]
        card = request.cards[sample.entity]
        others = [other for index, other in enumerate(cards) if index not in chosen]
        own = [mark for mark in card if not any(has_mark(other, mark) for other in others)]
        recalled = list(asked) or _pick(card, own, rng)
        parts = [rng.choice(BY_MARKS if asked else RECALL).format(name=sample.entity, marks=listed(recalled))]
        parts.append(rng.choice(TURN).format(count=len(cards)))
        look, named = rng.choice(LOOK), rng.random() < 0.5
        for index, thing in enumerate(sample.things):
            quoted = recalled if index in chosen else _pick(cards[index], [], rng)
            text = look.format(ordinal=ORDINALS[index % len(ORDINALS)], box=f"<obj:{index}>", marks=listed(quoted))
            if named and not asked:
                text += rng.choice(NAMED).format(name=thing.entity)
            missing = [mark for mark in recalled if not has_mark(cards[index], mark)]
            if index in chosen:
                text += rng.choice(FITS)
            elif missing:
                text += _set_apart(missing, cards[index], rng)
            parts.append(text)
        if chosen and not asked:
            compare = COMPARE if len(chosen) == 1 else COMPARE_ALL
            parts.append(rng.choice(compare).format(own=own[0]) if own else rng.choice(CLOSE))
            parts += _unlike(request, rng)
        end = CONCLUDE if len(chosen) == 1 else CONCLUDE_ALL if chosen else CONCLUDE_NONE
        boxes = [f"<obj:{index}>" for index in chosen]
        both = " and ".join([", ".join(boxes[:-1]), boxes[-1]] if len(boxes) > 1 else boxes)
        parts.append(rng.choice(end).format(name="it" if asked else sample.entity, boxes=both))
        return " ".join(part for part in parts if part)


def _name_thought(request: ReasoningRequest, rng: random.Random) -> str:
    """Look at one thing, recall the kinds that may fit, compare them, and name it."""
    sample, cards, card = request.sample, request.cards, request.cards[request.sample.entity]
    rivals = [name for name in sample.options if name != sample.entity and name in cards]
    rivals = sorted(rivals, key=lambda name: (-word_overlap(card, cards[name]), name))[:2]
    own = [mark for mark in card if not any(has_mark(cards[name], mark) for name in rivals)]
    place = REFERENCE.search(sample.question)
    here = f"At {place[0]}" if place else "Here"
    seen = _pick(card, own, rng)
    parts = [rng.choice(SEEN).format(here=here, lower=f"{here[0].lower()}{here[1:]}", marks=listed(seen))]
    names = [sample.entity, *rivals]
    rng.shuffle(names)
    known = rng.choice(KNOWN)
    for name in names:
        marks = seen if name == sample.entity else _pick(cards[name], [], rng)
        parts.append(known.format(name=name, marks=listed(marks)))
    parts.append(rng.choice(COMPARE).format(own=own[0]) if own else rng.choice(CLOSE))
    return " ".join((*parts, rng.choice(NAME).format(name=sample.entity)))


def _append(caption: str, others: Sequence[str]) -> str:
    """Append those clauses of other captions that hold a detail the caption does not have yet."""
    found = [f"{caption.rstrip(' .')}."]
    for clause in (clause for other in others for clause in clauses(other)):
        if claims.added(found, clause):
            found.append(_sentence(clause))
    return " ".join(found)


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:]}."


def _set_apart(missing: Sequence[str], card: Sequence[str], rng: random.Random) -> str:
    """Say that a candidate differs: by its own card's mark of the same part, otherwise that its card lacks the mark."""
    for mark in missing:
        part = part_of(mark)
        if same := [own for own in card if part and part_of(own) == part]:
            return rng.choice(OTHER).format(missing=listed([mark]), its=listed(same[:1]))
    return rng.choice(UNKNOWN).format(missing=listed(missing[:2]))


def _unlike(request: ReasoningRequest, rng: random.Random) -> list[str]:
    """Say how the target differs from a look-alike in the image, if the cards hold differential marks of the two."""
    if not isinstance(request.cards, Cards):
        return []
    for thing in request.sample.things:
        for own, its in request.cards.differences(request.sample.entity, thing.entity):
            if own and its:
                return [rng.choice(UNLIKE).format(other=thing.entity, own=own, its=its)]
    return []


def _pick(card: Sequence[str], first: Sequence[str], rng: random.Random) -> list[str]:
    """Choose up to four marks of a card, those in `first` before the others, in the card's own order."""
    rest = [mark for mark in card if mark not in first]
    chosen = [*list(first)[:MOST_MARKS], *rng.sample(rest, len(rest))][:MOST_MARKS]
    return [mark for mark in card if mark in chosen]
