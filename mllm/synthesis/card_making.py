"""Knowledge cards being made: marks checked in images, differences of look-alikes added, everything counted."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.knowledge import card_files, confusables
from mllm.knowledge.card_files import Card, Mark
from mllm.knowledge.confusables import ConfusablePair
from mllm.knowledge.visible import unseen
from mllm.records import Photo
from mllm.synthesis.capabilities import Knows, Look, Sees
from mllm.synthesis.lineups import Entity


def check_marks(card: Card, photos: Sequence[Photo], folder: Path, teacher: Sees, *, most: int, seed: int) -> Card:
    """Look for each mark of a card in at most `most` photos of its entity; photo paths are relative to `folder`."""
    rng = random.Random(f"{seed}/look/{card.domain}/{card.entity}")
    texts = [mark.text for mark in card.marks]
    answers = []
    for photo in rng.sample(photos, min(most, len(photos))):
        box = photo.boxes[0] if photo.boxes else None
        answers.append(teacher.sees(Look(folder / photo.image, photo.domain, box, photo.marks), texts))
    rows = list(zip(*answers, strict=True)) or [()] * len(texts)
    return replace(card, marks=tuple(verified(mark, row) for mark, row in zip(card.marks, rows, strict=True)))


def verified(mark: Mark, answers: Sequence[bool | None]) -> Mark:
    """Return the mark as verified if it is visible in most images that show the part, None if no image does."""
    known = [answer for answer in answers if answer is not None]
    if not known:
        return replace(mark, verified=None)
    return replace(mark, verified=2 * sum(known) > len(known), seen=sum(known), looked=len(known))


def with_differences(pair: ConfusablePair, card: Card, other: Card, teacher: Knows | None) -> ConfusablePair:
    """Add the marks that tell two look-alikes apart: from the teacher, otherwise from their cards."""
    if teacher is None:
        return replace(pair, differences=confusables.differences(card, other))
    named = teacher.differences(pair.entity, pair.other, pair.domain)
    dropped = {mark.text for one in (card, other) for mark in one.marks if mark.verified is False}
    kept = [two for two in named if two[0] and not dropped & set(two) and not any(map(unseen, two))]
    return replace(pair, differences=tuple(kept))


def with_pairs(cards: Sequence[Card], pairs: Sequence[ConfusablePair]) -> list[Card]:
    """Return the cards with the pairs, each pair on both cards, from the card's own point of view."""
    unlike: dict[Entity, dict[str, tuple[tuple[str, ...], ...]]] = defaultdict(dict)
    known = {(card.domain, card.entity): card for card in cards}
    for pair in pairs:
        turned = tuple((its, own) for own, its in pair.differences if its)
        if not turned:
            turned = confusables.differences(known[pair.domain, pair.other], known[pair.domain, pair.entity])
        unlike[pair.domain, pair.entity][pair.other] = pair.differences
        unlike[pair.domain, pair.other][pair.entity] = turned
    return [replace(card, unlike=unlike[card.domain, card.entity]) for card in cards]


def count_facts(cards: Sequence[Card], pairs: Sequence[ConfusablePair]) -> dict[str, Any]:
    """Count cards, marks by verification, and pairs: the manifest's facts."""
    names = {True: "verified", False: "dropped: not seen in most images", None: card_files.UNVERIFIED}
    return {
        "cards": dict(sorted(Counter(card.domain for card in cards).items())),
        "marks": dict(sorted(Counter(names[mark.verified] for card in cards for mark in card.marks).items())),
        "pairs": len(pairs),
        "pairs without a differential mark": sum(not pair.differences for pair in pairs),
    }
