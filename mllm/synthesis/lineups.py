"""Line-ups: which photos are in one composite, and which of them is asked for.

The things are different entities of one domain. Distractors are of the target's stratum if that has enough of them:
among seen distractors an unseen thing could be found by elimination, without knowing it.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from mllm.errors import FieldmarkError
from mllm.knowledge.cards import Cards, word_overlap
from mllm.prompting.questions import ABSENT, NAME, SEVERAL
from mllm.records import Photo, QuestionKind, Split, Stratum

MOST_ALIKE = 3
"""Without a genus, this many entities with the most similar cards count as look-alikes."""
Entity = tuple[str, str]
"""(domain, name)"""


@dataclass(frozen=True, slots=True)
class LineUp:
    """Photos in the order of their cells; the line-up was drawn for the first target.

    Of kind `absent`, the first target is in no cell; of kind `several`, its entity is in more than one.
    """

    photos: tuple[Photo, ...]
    targets: tuple[Photo, ...]
    stratum: Stratum
    kind: QuestionKind = NAME


class Pool:
    """The photos of one side by entity, to draw line-ups from."""

    def __init__(
        self,
        photos: Sequence[Photo],
        side: Split,
        cards: Mapping[str, tuple[str, ...]],
        things: tuple[int, int],
        *,
        by_photo: bool = False,
    ) -> None:
        """Index the photos of `side`; `things`: fewest and most in a line-up.

        Every entity is asked for equally often, or with `by_photo` as often as it has photos. Raises FieldmarkError
        without enough photos.
        """
        self.side: Split = side
        self.cards = cards
        self.fewest, self.most = things
        trained = {photo.domain for photo in photos if photo.seen}
        self.photos: dict[Entity, list[Photo]] = defaultdict(list)
        self.stratum: dict[Entity, Stratum] = {}
        for photo in photos:
            if photo.split == side:
                key = (photo.domain, photo.entity)
                self.photos[key].append(photo)
                self.stratum[key] = "seen" if photo.seen else "unseen" if photo.domain in trained else "unseen domain"
        self._domains: dict[str, list[Entity]] = defaultdict(list)
        for key in sorted(self.photos):
            self._domains[key[0]].append(key)
        self.targets: dict[Stratum, list[Entity]] = {}  # entities with a photo of one box, and enough others beside
        for key in sorted(self.photos):
            if self._single(key) and len(self._domains[key[0]]) >= self.fewest:
                times = len(self._single(key)) if by_photo else 1
                self.targets.setdefault(self.stratum[key], []).extend([key] * times)
        if not self.targets:
            raise FieldmarkError(
                f"{side}: no domain has photos of {self.fewest} different entities (with one box each) on this side;"
                " give more photos, other shares, or fewer things"
            )
        self.strata: tuple[Stratum, ...] = tuple(name for name in get_args(Stratum) if name in self.targets)
        self.repeated = {  # of which this side has several photos
            name: [key for key in keys if len(self.photos[key]) > 1] for name, keys in self.targets.items()
        }
        self._alike: dict[Entity, list[Entity]] = {}

    def draw(
        self, index: int, seed: str, rng: random.Random, *, sisters: float, questions: int, kind: QuestionKind = NAME
    ) -> LineUp:
        """Draw line-up number `index`: strata take turns, and each uses every entity before it repeats one."""
        stratum, turn = self.strata[index % len(self.strata)], index // len(self.strata)
        if kind == SEVERAL and not self.repeated[stratum]:  # no entity has two photos
            kind = NAME
        entities = self.repeated[stratum] if kind == SEVERAL else self.targets[stratum]
        lap, place = divmod(turn, len(entities))
        order = list(range(len(entities)))
        random.Random(f"{seed}/lap/{stratum}/{lap}").shuffle(order)
        target = entities[order[place]]
        others = self._distractors(target, rng, sisters, absent=kind == ABSENT)
        first = rng.choice(self._single(target))
        again: list[Photo] = []
        if kind == SEVERAL:  # one or two more photos of the target
            more = [photo for photo in self.photos[target] if photo.id != first.id]
            again = rng.sample(more, min(rng.randint(1, 2), max(1, self.most - 2), len(more)))
        chosen = [(other, rng.choice(self.photos[other])) for other in others]
        chosen = chosen[: self.most - len(again) - (kind != ABSENT)]
        asked = [photo for key, photo in chosen if len(photo.boxes) == 1 and self.stratum[key] == stratum]
        asked = rng.sample(asked, min(questions - 1, len(asked)))
        photos = [photo for _, photo in chosen] if kind == ABSENT else [first, *(photo for _, photo in chosen), *again]
        rng.shuffle(photos)
        return LineUp(tuple(photos), (first, *asked), stratum, kind)

    def look_alikes(self, key: Entity) -> list[Entity]:
        """Return the entities of the side that are easily confused with `key`.

        Those on its card (`unlike`), otherwise those of its genus, otherwise those with the most similar cards.
        """
        if key in self._alike:
            return self._alike[key]
        others = [other for other in self._domains[key[0]] if other != key]
        alike = []
        if isinstance(self.cards, Cards) and (named := self.cards.confused_with(key[1])):
            alike = [other for other in others if self.cards.same(other[1]) in named]
        genus = self.photos[key][0].genus
        if not alike and genus is not None:
            alike = [other for other in others if self.photos[other][0].genus == genus]
        if not alike:
            card = self.cards[key[1]]
            scored = sorted(((word_overlap(card, self.cards[other[1]]), other) for other in others), reverse=True)
            alike = [other for score, other in scored[:MOST_ALIKE] if score > 0]
        self._alike[key] = alike
        return alike

    def _distractors(self, target: Entity, rng: random.Random, sisters: float, *, absent: bool = False) -> list[Entity]:
        """Choose the distractors, one more if the target is `absent`; each a look-alike with probability `sisters`."""
        fellows = [key for key in self._domains[target[0]] if key != target]
        same = [key for key in fellows if self.stratum[key] == self.stratum[target]]
        pool = same if len(same) >= self.most - 1 else fellows
        count = rng.randint(self.fewest, min(self.most, len(pool) + 1)) - 1
        count = min(count + absent, len(pool))
        alike = [key for key in self.look_alikes(target) if key in pool]
        rest = [key for key in pool if key not in alike]
        chosen: list[Entity] = []
        for _ in range(count):
            first, second = (alike, rest) if rng.random() < sisters else (rest, alike)
            source = first or second
            chosen.append(source.pop(rng.randrange(len(source))))
        return chosen

    def _single(self, key: Entity) -> list[Photo]:
        """Return the photos of an entity with one box: with several it would be unclear which is meant."""
        return [photo for photo in self.photos[key] if len(photo.boxes) == 1]
