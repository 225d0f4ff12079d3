"""What is easily taken for what: pairs of entities whose cards read alike or whose photos look alike.

Each entity is paired with the few of its domain that come nearest. Nearness is the mean of two numbers from 0 to 1: how
alike the cards read (`knowledge.likeness`) and how alike the photos look (cosine of the mean photo vectors, rescaled);
the first alone where there are no photos. What a photo's vector is may be chosen: any function from a photo to numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from mllm.boxes import Frame
from mllm.io import strict_json
from mllm.io.images import open_image, phash
from mllm.knowledge.card_files import Card, KnowledgeError
from mllm.knowledge.cards import holds, likeness
from mllm.records import Photo

Vector = Callable[[Photo], np.ndarray]
"""A photo's place in a space where look-alikes lie close: shape (D,), any length but zero."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two entities that are easily taken for one another, and why; `differences` are (mark of `entity`, of `other`)."""

    SCHEMA: ClassVar[str] = "fieldmark.pair/1"

    id: str
    domain: str
    entity: str
    other: str
    text: float
    image: float | None = None
    differences: tuple[tuple[str, ...], ...] = ()

    @property
    def nearness(self) -> float:
        """The number by which pairs are chosen, 0..1."""
        return self.text if self.image is None else (self.text + self.image) / 2


def by_hash(folder: Path) -> Vector:
    """Perceptual hash of what the first box encloses, as 64 numbers +1 or -1: the cosine is 1 - 2 d / 64, d the
    Hamming distance. `folder` is the one that the photos' paths are relative to.
    """

    def vector(photo: Photo) -> np.ndarray:
        image = open_image(folder / photo.image)
        if photo.boxes:
            x1, y1, x2, y2 = (round(number) for number in photo.boxes[0].to_xyxy(Frame(*image.size)))
            image = image.crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))
        code = int(phash(image), 16)
        return np.array([1.0 if code >> bit & 1 else -1.0 for bit in range(64)])

    return vector


def by_file(file: Path) -> Vector:
    """Embeddings made elsewhere: a jsonl of `{"id": photo id, "vector": [numbers]}`."""
    known: dict[str, np.ndarray] = {}
    if not file.is_file():
        raise KnowledgeError(f"{file}: no such file of embeddings")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = strict_json.loads(line)
            known[row["id"]] = np.array(row["vector"], dtype=float)
        except (ValueError, KeyError, TypeError) as error:
            raise KnowledgeError(f'{file}:{number}: {{"id": ..., "vector": [...]}} is needed ({error!r})') from None
        shape = known[row["id"]].shape
        if len(shape) != 1 or not np.isfinite(known[row["id"]]).all() or not known[row["id"]].any():
            raise KnowledgeError(f"{file}:{number}: field vector: finite numbers, not all zero, are needed")

    def vector(photo: Photo) -> np.ndarray:
        if photo.id not in known:
            raise KnowledgeError(f"{file}: no vector of photo {photo.id!r}; make the embeddings of all photos")
        return known[photo.id]

    return vector


def looks(photos: Iterable[Photo], vector: Vector) -> dict[tuple[str, str], np.ndarray]:
    """Return each (domain, entity)'s mean photo vector, every photo counting alike; the mean's length is 1."""
    sums: dict[tuple[str, str], np.ndarray] = {}
    for photo in photos:
        one = vector(photo)
        key = (photo.domain, photo.entity)
        sums[key] = sums.get(key, 0.0) + one / np.linalg.norm(one)
    return {key: total / max(float(np.linalg.norm(total)), 1e-12) for key, total in sums.items()}


def pairs(
    cards: Sequence[Card], seen: Mapping[tuple[str, str], np.ndarray], alike: int, least: float = 0.0
) -> list[Pair]:
    """Pair each card with the `alike` nearest of its domain whose nearness is above `least`; sorted by names.

    `seen` are the entities' looks, for all cards or for none of a domain.
    """
    by_domain: dict[str, list[Card]] = defaultdict(list)
    for card in sorted(cards, key=lambda card: card.entity):
        by_domain[card.domain].append(card)
    found: dict[str, Pair] = {}
    for domain, members in by_domain.items():
        table: dict[str, list[Pair]] = defaultdict(list)
        for index, card in enumerate(members):
            for other in members[index + 1 :]:
                one = _pair(domain, card, other, seen)
                table[card.entity].append(one)
                table[other.entity].append(one)
        for rows in table.values():
            rows.sort(key=lambda pair: (-pair.nearness, pair.id))
            found |= {pair.id: pair for pair in rows[:alike] if pair.nearness > least}
    return [found[key] for key in sorted(found)]


def differences(card: Card, other: Card) -> tuple[tuple[str, str], ...]:
    """Read off two cards what tells the first from the second: its marks that the other lacks, each beside the other's
    mark of the same part ("" where it has none).
    """
    own, its = card.used, other.used
    parts = {mark.text.strip().rstrip("."): mark.part for mark in (*card.marks, *other.marks)}
    left = [mark for mark in its if not holds(own, mark)]
    told = []
    for mark in own:
        if not holds(its, mark):
            facing = next((one for one in left if parts[mark] and parts[one] == parts[mark]), "")
            left = [one for one in left if one != facing]
            told.append((mark, facing))
    return tuple(told)


def _pair(domain: str, card: Card, other: Card, seen: Mapping[tuple[str, str], np.ndarray]) -> Pair:
    a, b = seen.get((domain, card.entity)), seen.get((domain, other.entity))
    picture = None if a is None or b is None else round((1 + float(a @ b)) / 2, 4)
    text = round(likeness(card.used, other.used), 4)
    return Pair(f"{domain}/{card.entity}/{other.entity}", domain, card.entity, other.entity, text, picture)
