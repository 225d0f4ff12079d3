"""Reasoning composed from knowledge cards and boxes, without a model: recall, look at each, compare, conclude.

The wording is drawn by seed from a small grammar; every mark in it is quoted from a card. What is said of a candidate
is what its own card says, which is knowledge of its kind, not sight of this one: wrong cards teach wrong things.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from mllm.knowledge import likeness
from mllm.teachers import Reasoning, target_index

MOST_MARKS = 4
"""How many marks are recalled, and quoted for each candidate, at most."""
_SAME = 0.5
"""Two marks whose words overlap by so much say the same."""

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
LACKS = (" I look in vain for: {missing}.", " It does not show: {missing}.", " Missing here: {missing}.")
COMPARE = (
    "Comparing them, only one shows: {own}.",
    "What decides between them: {own}.",
    "Side by side, one mark stands out: {own}.",
)
CLOSE = ("They are much alike; the whole of the marks has to decide.", "No single mark decides, their sum does.")
CONCLUDE = (
    "So {name} is {box}.",
    "Therefore I point at {box}.",
    "That makes it {box}.",
    "The match is {box}.",
    "My choice is {box}.",
)
ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth")


class Teacher:
    """Teacher interface over knowledge cards."""

    def reason(self, request: Reasoning) -> str:
        """Write one thought. Raises `KnowledgeError` (from the cards) for an entity without a card."""
        rng = random.Random(f"cards/{request.seed}/{request.sample.id}")
        sample, target = request.sample, target_index(request.sample)
        cards = [request.cards[thing.entity] for thing in sample.things]
        others = [card for index, card in enumerate(cards) if index != target]
        own = [mark for mark in cards[target] if not any(_has(card, mark) for card in others)]
        recalled = _pick(cards[target], own, rng)
        parts = [rng.choice(RECALL).format(name=sample.entity, marks=_listed(recalled))]
        parts.append(rng.choice(TURN).format(count=len(cards)))
        look, named = rng.choice(LOOK), rng.random() < 0.5
        for index, thing in enumerate(sample.things):
            quoted = recalled if index == target else _pick(cards[index], [], rng)
            text = look.format(ordinal=ORDINALS[index % len(ORDINALS)], box=f"<obj:{index}>", marks=_listed(quoted))
            if named:
                text += rng.choice(NAMED).format(name=thing.entity)
            missing = [mark for mark in recalled if not _has(cards[index], mark)]
            if index == target:
                text += rng.choice(FITS)
            elif missing:
                text += rng.choice(LACKS).format(missing=_listed(missing[:2]))
            parts.append(text)
        parts.append(rng.choice(COMPARE).format(own=own[0]) if own else rng.choice(CLOSE))
        parts.append(rng.choice(CONCLUDE).format(name=sample.entity, box=f"<obj:{target}>"))
        return " ".join(part for part in parts if part)


def _pick(card: Sequence[str], first: Sequence[str], rng: random.Random) -> list[str]:
    """Choose up to four marks of a card, those in `first` before the others, in the card's own order."""
    rest = [mark for mark in card if mark not in first]
    chosen = [*list(first)[:MOST_MARKS], *rng.sample(rest, len(rest))][:MOST_MARKS]
    return [mark for mark in card if mark in chosen]


def _has(card: Sequence[str], mark: str) -> bool:
    """Whether a card says the same as `mark`, in these or similar words."""
    return any(likeness([mark], [other]) >= _SAME for other in card)


def _listed(marks: Sequence[str]) -> str:
    """Write marks as a list; those that hold commas of their own are parted by semicolons."""
    return ("; " if any("," in mark for mark in marks) else ", ").join(marks)
