"""Line-ups: which photos are in one image, and which thing of it is asked for.

A composite shows different entities of one domain, from photos of one kind each. Distractors are of the target's
stratum if that has enough of them: among seen distractors an unseen thing could be found by elimination, without
knowing it. A scene is one photo of several kinds as it is: the distractors are what else is in it.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from mllm.errors import FieldmarkError
from mllm.knowledge.cards import Cards, word_overlap
from mllm.prompting.questions import ABSENT, NAME, SEVERAL
from mllm.records import Entity, Photo, PhotoThing, QuestionKind, Split, Stratum

MOST_ALIKE = 3
"""Without a genus, this many entities with the most similar cards count as look-alikes."""


@dataclass(frozen=True, slots=True)
class LineUp:
    """Photos in the order of their cells, one for a scene; the line-up was drawn for the first target.

    Of kind `absent`, the first target is in no cell; of kind `several`, there is more than one of its entity.
    """

    photos: tuple[Photo, ...]
    targets: tuple[PhotoThing, ...]
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
        scenes: float | None = None,
    ) -> None:
        """Index the photos of `side`; `things`: fewest and most in a composite; `scenes`: share of scenes.

        Without a share, scenes are as frequent as among the photos. Every entity is asked for equally often, or with
        `by_photo` as often as it has photos. Raises FieldmarkError without enough photos.
        """
        self.side: Split = side
        self.cards = cards
        self.fewest, self.most = things
        self.photos: dict[Entity, list[Photo]] = defaultdict(list)
        self.scenes: dict[Entity, list[Photo]] = defaultdict(list)
        self.stratum: dict[Entity, Stratum] = {}
        self._genus: dict[Entity, str | None] = {}
        here = [photo for photo in photos if photo.split == side]
        trained = {thing.domain for photo in photos for thing in photo.things if thing.seen}
        for photo in here:
            for key, thing in {thing.kind: thing for thing in reversed(photo.things)}.items():
                (self.scenes if photo.is_scene else self.photos)[key].append(photo)
                self.stratum[key] = "seen" if thing.seen else "unseen" if key[0] in trained else "unseen domain"
                self._genus.setdefault(key, thing.genus)
        self._domains: dict[str, list[Entity]] = defaultdict(list)
        for key in sorted(self.photos):
            self._domains[key[0]].append(key)
        single = {key: self._single(key) for key in self.photos if len(self._domains[key[0]]) >= self.fewest}
        self.targets = self._by_stratum(single, by_photo)  # entities with a photo of one box, and enough others beside
        self.strata: tuple[Stratum, ...] = tuple(name for name in get_args(Stratum) if name in self.targets)
        self.repeated = {  # of which this side has several photos
            name: [key for key in keys if len(self.photos[key]) > 1] for name, keys in self.targets.items()
        }
        self._asked: dict[bool, dict[Entity, list[Photo]]] = {False: defaultdict(list), True: defaultdict(list)}
        for photo in here:
            for key, found in self._askable(photo).items() if photo.is_scene else ():
                self._asked[len(found) > 1][key].append(photo)
        self._scene_targets = {several: self._by_stratum(asked, by_photo) for several, asked in self._asked.items()}
        self.share = self._share(scenes, sum(photo.is_scene for photo in here) / max(len(here), 1))
        self._alike: dict[Entity, list[Entity]] = {}

    def draw(
        self,
        index: int,
        seed: str,
        rng: random.Random,
        *,
        sisters: float,
        questions: int,
        kind: QuestionKind = NAME,
        attempt: int = 0,
    ) -> LineUp:
        """Draw line-up number `index`: strata take turns, and each uses every entity before it repeats one.

        `attempt` counts the line-ups of this number that were rejected: a scene of another entity follows.
        """
        scenes = int(index * self.share)
        if int((index + 1) * self.share) > scenes:
            return self._draw_scene(scenes, attempt, seed, rng, sisters=sisters, questions=questions, kind=kind)
        index -= scenes
        stratum, turn = self.strata[index % len(self.strata)], index // len(self.strata)
        if kind == SEVERAL and not self.repeated[stratum]:  # no entity has two photos
            kind = NAME
        target = _in_turn(self.repeated[stratum] if kind == SEVERAL else self.targets[stratum], turn, seed, stratum)
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
        return LineUp(tuple(photos), tuple(photo.things[0] for photo in (first, *asked)), stratum, kind)

    def look_alikes(self, key: Entity) -> list[Entity]:
        """Return the entities of the side that are easily confused with `key`.

        Those on its card (`unlike`), otherwise those of its genus, otherwise those with the most similar cards.
        """
        if key in self._alike:
            return self._alike[key]
        others = [other for other in sorted(self.stratum) if other[0] == key[0] and other != key]
        alike = []
        if isinstance(self.cards, Cards) and (named := self.cards.confused_with(key[1])):
            alike = [other for other in others if self.cards.same(other[1]) in named]
        genus = self._genus[key]
        if not alike and genus is not None:
            alike = [other for other in others if self._genus[other] == genus]
        if not alike:
            card = self.cards[key[1]]
            scored = sorted(((word_overlap(card, self.cards[other[1]]), other) for other in others), reverse=True)
            alike = [other for score, other in scored[:MOST_ALIKE] if score > 0]
        self._alike[key] = alike
        return alike

    def _draw_scene(
        self,
        index: int,
        attempt: int,
        seed: str,
        rng: random.Random,
        *,
        sisters: float,
        questions: int,
        kind: QuestionKind,
    ) -> LineUp:
        """Draw scene number `index`; an absent target is a look-alike of what is there with probability `sisters`."""
        several = kind == SEVERAL and bool(self._scene_targets[True])
        kind = NAME if kind == SEVERAL and not several else kind
        targets = self._scene_targets[several]
        strata: list[Stratum] = [name for name in get_args(Stratum) if name in targets]
        stratum, turn = strata[index % len(strata)], index // len(strata) + attempt
        target = _in_turn(targets[stratum], turn, f"{seed}/scene", stratum)
        photo = rng.choice(self._asked[several][target])
        first = photo.of(target)[0]
        if kind == ABSENT:
            if (without := self._without(target, rng, sisters)) is None:  # it is on every photo
                kind = NAME
            else:
                photo = without
        asked = [
            found[0]
            for key, found in self._askable(photo).items()
            if len(found) == 1 and key != target and self.stratum[key] == stratum
        ]
        return LineUp((photo,), (first, *rng.sample(asked, min(questions - 1, len(asked)))), stratum, kind)

    def _without(self, target: Entity, rng: random.Random, sisters: float) -> Photo | None:
        """Choose a scene without the target, one of a look-alike or else of a fellow of its domain if there is one."""
        fellows = [key for key in self.scenes if key[0] == target[0] and key != target]
        alike = [key for key in self.look_alikes(target) if key in self.scenes]
        near = alike if alike and rng.random() < sisters else fellows
        for key in (*rng.sample(near, len(near)), *rng.sample(list(self.scenes), len(self.scenes))):
            photo = rng.choice(self.scenes[key])
            if target not in photo.kinds and len(photo.things) > 1:
                return photo
        return None

    def _askable(self, photo: Photo) -> dict[Entity, list[PhotoThing]]:
        """Return the things of a scene that may be asked for, by kind: not beside a crowd of theirs, and not alone."""
        crowds = {crowd.kind for crowd in photo.crowds}
        found: dict[Entity, list[PhotoThing]] = {}
        for thing in photo.things if len(photo.things) > 1 else ():
            if thing.kind not in crowds and thing.use in ("train", self.side):
                found.setdefault(thing.kind, []).append(thing)
        return found

    def _by_stratum(self, photos: Mapping[Entity, Sequence[Photo]], by_photo: bool) -> dict[Stratum, list[Entity]]:
        """Return the entities that have photos, each once or as often as it has photos."""
        found: dict[Stratum, list[Entity]] = {}
        for key in sorted(photos):
            if photos[key]:
                found.setdefault(self.stratum[key], []).extend([key] * (len(photos[key]) if by_photo else 1))
        return found

    def _share(self, wanted: float | None, present: float) -> float:
        """Return the share of scenes: the one that is wanted, or else `present` where both kinds can be made."""
        scenes = bool(self._scene_targets[False])
        share = wanted if wanted is not None else present if scenes and self.targets else float(scenes)
        if share and not scenes:
            raise FieldmarkError(
                f"{self.side}: no photo on this side shows several kinds, one of them once; give such photos, other "
                "shares, or --scenes 0"
            )
        if share < 1 and not self.targets:
            raise FieldmarkError(
                f"{self.side}: no domain has photos of {self.fewest} different entities (with one box each) on this "
                f"side; give more photos, other shares, or fewer things{', or --scenes 1' if scenes else ''}"
            )
        return share

    def alternatives(self, target: PhotoThing, rng: random.Random) -> list[str]:
        """Return the other names of a thing's domain: of its stratum first, look-alikes before the rest, then shuffled.

        A thing that was not trained on could be found by elimination among names that were.
        """
        key = target.kind
        others = [other for other in sorted(self.stratum) if other[0] == key[0] and other != key]
        rng.shuffle(others)
        alike, stratum = self.look_alikes(key), self.stratum[key]
        return [name for _, name in sorted(others, key=lambda one: (self.stratum[one] != stratum, one not in alike))]

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


def _in_turn(entities: Sequence[Entity], turn: int, seed: str, stratum: Stratum) -> Entity:
    """Return the entity whose turn it is: every one before any is repeated, in another order each lap."""
    lap, place = divmod(turn, len(entities))
    order = list(range(len(entities)))
    random.Random(f"{seed}/lap/{stratum}/{lap}").shuffle(order)
    return entities[order[place]]
