"""Entities that are easily confused: each with the nearest few of its domain, by similar cards or similar photos.

Nearness is the mean of two numbers from 0 to 1: the word overlap of the cards and the rescaled cosine of the mean photo
vectors; without photos it is the first alone.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np

from mllm.boxes import Frame
from mllm.io import strict_json
from mllm.io.codec import Number, Record
from mllm.io.files import no_such
from mllm.io.images import open_image, phash
from mllm.knowledge.card_files import Card, KnowledgeError
from mllm.knowledge.cards import has_mark, word_overlap
from mllm.records import Entity, Photo, PhotoThing

Vector = Callable[[Photo, PhotoThing], np.ndarray]
"""Embeds a thing on a photo so that similar ones are close: shape (D,), any length but zero."""


@dataclass(frozen=True, slots=True)
class ConfusablePair(Record):
    """Two entities that are easily confused, and why; `differences` are pairs (mark of `entity`, mark of `other`)."""

    SCHEMA: ClassVar[str] = "fieldmark.pair/1"

    id: str
    domain: str
    entity: str
    other: str
    text: Number
    image: Number | None = None
    differences: tuple[tuple[str, ...], ...] = ()

    @property
    def nearness(self) -> float:
        """The number by which pairs are ranked, 0..1."""
        return self.text if self.image is None else (self.text + self.image) / 2


def by_hash(folder: Path) -> Vector:
    """Embed what is in a thing's box by its perceptual hash, as 64 numbers +1 or -1.

    The cosine of two is 1 - 2 d / 64, where d is the Hamming distance. The photos' paths are relative to `folder`.
    """

    def vector(photo: Photo, thing: PhotoThing) -> np.ndarray:
        image = open_image(folder / photo.image)
        if thing.box is not None:
            x1, y1, x2, y2 = (round(number) for number in thing.box.to_xyxy(Frame(*image.size)))
            image = image.crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))
        code = int(phash(image), 16)
        return np.array([1.0 if code >> bit & 1 else -1.0 for bit in range(64)])

    return vector


def by_file(file: Path) -> Vector:
    """Read embeddings of whole photos from a jsonl file of `{"id": photo id, "vector": [numbers]}`."""
    known: dict[str, np.ndarray] = {}
    if not file.is_file():
        raise KnowledgeError(no_such(file, "file of embeddings"))
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = strict_json.loads(line)
            known[row["id"]] = np.array(row["vector"], dtype=float)
        except (ValueError, KeyError, TypeError) as error:
            raise KnowledgeError(f'{file}:{number}: {{"id": ..., "vector": [...]}} is needed ({error!r})') from None
        shape = known[row["id"]].shape
        if len(shape) != 1 or not np.isfinite(known[row["id"]]).all() or not known[row["id"]].any():
            raise KnowledgeError(f"{file}:{number}: field vector: finite numbers, not all zero, are needed")

    def vector(photo: Photo, thing: PhotoThing) -> np.ndarray:
        if photo.id not in known:
            raise KnowledgeError(f"{file}: no vector for photo {photo.id!r}; the file must have one for every photo")
        return known[photo.id]

    return vector


def looks(photos: Iterable[Photo], vector: Vector) -> dict[Entity, np.ndarray]:
    """Return the mean vector of each entity, scaled to length 1; of a photo its first thing of the kind counts."""
    sums: dict[Entity, np.ndarray] = {}
    for photo in photos:
        for thing in {thing.kind: thing for thing in reversed(photo.things)}.values():
            one = vector(photo, thing)
            sums[thing.kind] = sums.get(thing.kind, 0.0) + one / np.linalg.norm(one)
    return {key: total / max(float(np.linalg.norm(total)), 1e-12) for key, total in sums.items()}


def pairs(
    cards: Sequence[Card], seen: Mapping[tuple[str, str], np.ndarray], alike: int, least: float = 0.0
) -> list[ConfusablePair]:
    """Pair each card with the `alike` nearest of its domain whose nearness is above `least`; sorted by names.

    `seen` holds the entities' mean photo vectors, for all cards of a domain or for none.
    """
    by_domain: dict[str, list[Card]] = defaultdict(list)
    for card in sorted(cards, key=lambda card: card.entity):
        by_domain[card.domain].append(card)
    found: dict[str, ConfusablePair] = {}
    for domain, members in by_domain.items():
        table: dict[str, list[ConfusablePair]] = defaultdict(list)
        for card, other in combinations(members, 2):
            a, b = seen.get((domain, card.entity)), seen.get((domain, other.entity))
            image = None if a is None or b is None else round((1 + float(a @ b)) / 2, 4)
            text = round(word_overlap(card.used, other.used), 4)
            key = f"{domain}/{card.entity}/{other.entity}"
            one = ConfusablePair(key, domain, card.entity, other.entity, text, image)
            table[card.entity].append(one)
            table[other.entity].append(one)
        for rows in table.values():
            rows.sort(key=lambda pair: (-pair.nearness, pair.id))
            found |= {pair.id: pair for pair in rows[:alike] if pair.nearness > least}
    return [found[key] for key in sorted(found)]


def differences(card: Card, other: Card) -> tuple[tuple[str, str], ...]:
    """Return the marks that distinguish the first card from the second.

    These are its marks that the other lacks, each paired with the other's mark of the same part ("" where none).
    """
    own, its = card.used, other.used
    parts = {mark.text.strip().rstrip("."): mark.part for mark in (*card.marks, *other.marks)}
    left = [mark for mark in its if not has_mark(own, mark)]
    found = []
    for mark in own:
        if not has_mark(its, mark):
            facing = next((one for one in left if parts[mark] and parts[one] == parts[mark]), "")
            left = [one for one in left if one != facing]
            found.append((mark, facing))
    return tuple(found)
