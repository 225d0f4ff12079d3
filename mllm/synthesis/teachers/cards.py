"""Reasoning composed from knowledge cards and boxes, without a model: recall, look at each, compare, conclude.

Every mark is quoted from a card, which is knowledge about a kind, not about this image: wrong cards teach wrong things.
With card files (`files`) it also knows marks of entities. It merges captions by rules: the result reads like notes.
"""

import random
from collections.abc import Sequence
from operator import and_
from pathlib import Path

from pydantic import Field

from mllm.captions import clauses
from mllm.config import Section
from mllm.errors import FieldmarkError
from mllm.knowledge.cards import Cards, has_mark, load_cards, part_of, word_overlap
from mllm.knowledge.names import normalize_name
from mllm.metrics import claims
from mllm.prompting import prose
from mllm.synthesis.capabilities import ReasoningRequest
from mllm.synthesis.consistency import SORTS
from mllm.synthesis.thoughts import targets

MOST_MARKS = 4
"""Maximum number of marks recalled, and quoted for each candidate."""

TURN = (
    "Now the candidates, from left to right.",
    "There are {count} candidates.",
    "Let me look at each of the {count} in turn.",
    "I go through them one by one.",
    "",
)
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NAMED = (" It looks like the {name}.", " That would fit the {name}.", " I take it for the {name}.")
FITS = (" That agrees with what I look for.", " That is what I was looking for.", " This one matches.")
OTHER: dict[bool, tuple[str, ...]] = {
    True: (
        " I was looking for {missing}, but this one has {its}.",
        " Where I expect {missing}, this one has {its}.",
        " It has {its} rather than {missing}.",
    ),
    False: (
        ' I was looking for "{missing}", but of this one I know "{its}".',
        ' Where my notes say "{missing}", they say "{its}" of this one.',
    ),
}
"""A mark that is missing against one of the same part; by whether one *has* both (`mllm.prompting.prose`)."""
UNKNOWN: dict[prose.Way, tuple[str, ...]] = {
    "has": (" It is not known for {missing}.", " Nothing I know of it mentions {missing}."),
    "is": (" It is not known to be {missing}.", " Nothing I know of it says that it is {missing}."),
    "note": (' My notes on it do not say "{missing}".', ' Nothing in my notes on it says "{missing}".'),
}
COMPARE: dict[prose.Way, tuple[str, ...]] = {
    "has": ("Of these, only one is known for {own}.", "Side by side, only one should show {own}."),
    "is": ("Of these, only one is known to be {own}.", "Side by side, only one should be {own}."),
    "note": ("One mark decides between them: {own}.", "Side by side, one mark stands out: {own}."),
}
COMPARE_ALL = ("They share what no other is known for: {own}.", "What sets them apart from the rest: {own}.")
CLOSE = ("They are much alike, and only all the marks together decide.", "No single mark decides; their sum does.")
UNLIKE: dict[bool, tuple[str, ...]] = {
    True: ("The {other} would have {its}, but here I see {own}.", "Unlike the {other} with {its}, it has {own}."),
    False: ('Of the {other} I know "{its}"; here it is "{own}".',),
}
CONCLUDE = (
    "Therefore I point at {boxes}.",
    "That makes it {boxes}.",
    "The match is {boxes}.",
    "My choice is {boxes}.",
)
CONCLUDE_NAMED = ("So my choice for the {name} is {boxes}.", "So I find the {name} at {boxes}.")
CONCLUDE_ALL = ("So I find the {name} at {boxes}.", "Therefore I point at {boxes}.", "All of this kind: {boxes}.")
CONCLUDE_NONE = (
    "So none of them matches the {name}.",
    "Therefore I see the {name} nowhere in this image.",
    "None of the candidates fits, so the {name} must be missing here.",
)


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
        sample, chosen, asked = request.sample, targets(request.sample), request.sample.asked
        cards = [request.cards[thing.entity] for thing in sample.things]
        card = request.cards[sample.entity]
        others = [other for index, other in enumerate(cards) if index not in chosen]
        own = [mark for mark in card if not any(has_mark(other, mark) for other in others)]
        recalled = list(asked) or _pick(card, own, rng)
        way, marks = prose.stated(recalled)
        begin = (prose.SOUGHT if asked else prose.RECALL)[way]
        parts = [rng.choice(begin).format(name=sample.entity, marks=marks)]
        parts.append(rng.choice(TURN).format(count=NUMBERS[len(cards)]))
        style, named = rng.randrange(len(prose.LOOK["has"])), rng.random() < 0.5
        for index, thing in enumerate(sample.things):
            way, marks = prose.stated(recalled if index in chosen else _pick(cards[index], [], rng))
            text = prose.LOOK[way][style].format(nth=prose.NTH[index], box=f"<obj:{index}>", marks=marks)
            if named and not asked:
                text += rng.choice(NAMED).format(name=thing.entity)
            missing = [mark for mark in recalled if not has_mark(cards[index], mark)]
            if index in chosen:
                text += rng.choice(FITS)
            elif missing:
                text += _set_apart(missing, cards[index], rng)
            parts.append(text)
        if chosen and not asked:
            parts.append(_compared(own, len(chosen), rng))
            parts += _unlike(request, rng) if len(chosen) == 1 else []
        alone = CONCLUDE if asked else CONCLUDE + CONCLUDE_NAMED
        end = alone if len(chosen) == 1 else CONCLUDE_ALL if chosen else CONCLUDE_NONE
        boxes = [f"<obj:{index}>" for index in chosen]
        both = " and ".join([", ".join(boxes[:-1]), boxes[-1]] if len(boxes) > 1 else boxes)
        parts.append(rng.choice(end).format(name=sample.entity, boxes=both))
        return " ".join(part for part in parts if part)


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
    parts = [part_of(own) for own in card]
    facing = [
        (mark, own) for mark in missing for own, part in zip(card, parts, strict=True) if part == part_of(mark) != ""
    ]
    unlike = {two: _comparable(*two) for two in facing}
    if any(unlike.values()):
        mark, its = max(unlike, key=unlike.__getitem__)
        return _both(OTHER, rng, missing=mark, its=its)
    way = prose.way(missing[0])
    lacking = [prose.phrase(mark) for mark in missing if prose.way(mark) == way]
    alone = way == "note" or any(" or " in mark for mark in lacking[:2])
    return rng.choice(UNKNOWN[way]).format(missing=" or ".join(lacking[: 1 if alone else 2]))


def _comparable(mark: str, other: str) -> float:
    """Return how well two marks of a part can be compared: 1 if both give its colour, size ..., 0 if other sorts."""
    one, two = ([bool(sort & set(normalize_name(text).split())) for sort in SORTS] for text in (mark, other))
    if any(map(and_, one, two)):
        return 1
    return 0 if any(one) and any(two) else 0.5 - 0.25 * (any(one) or any(two))


def _compared(own: Sequence[str], count: int, rng: random.Random) -> str:
    """Say which mark only the target has; that no single mark decides if there is none."""
    if not own:
        return rng.choice(CLOSE)
    mark = min(own, key=lambda one: prose.way(one) == "note")  # the first that a sentence can hold
    wordings = COMPARE[prose.way(mark)] if count == 1 else COMPARE_ALL
    return rng.choice(wordings).format(own=prose.phrase(mark))


def _unlike(request: ReasoningRequest, rng: random.Random) -> list[str]:
    """Say how the target differs from a look-alike in the image, if the cards hold differential marks of the two."""
    if not isinstance(request.cards, Cards):
        return []
    for thing in request.sample.things:
        for own, its in request.cards.differences(request.sample.entity, thing.entity):
            if own and its:
                return [_both(UNLIKE, rng, own=own, its=its).replace("{other}", thing.entity)]
    return []


def _both(wordings: dict[bool, tuple[str, ...]], rng: random.Random, **marks: str) -> str:
    """Fill two marks into a sentence: into one with `has` if one has both, otherwise quoted."""
    has = all(prose.way(mark) == "has" for mark in marks.values())
    written = {name: prose.phrase(mark) for name, mark in marks.items()}
    return rng.choice(wordings[has]).format(**written, other="{other}")


def _pick(card: Sequence[str], first: Sequence[str], rng: random.Random) -> list[str]:
    """Choose up to four marks of a card, those in `first` before the others, in the card's own order."""
    rest = [mark for mark in card if mark not in first]
    chosen = [*list(first)[:MOST_MARKS], *rng.sample(rest, len(rest))][:MOST_MARKS]
    return [mark for mark in card if mark in chosen]
