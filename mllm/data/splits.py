"""Splits photos by ENTITY and by IMAGE into train, validation and test, so that nothing of the test occurs in training.

Kinds of entities: train (seen; their photos are divided among the three sides), validation and test (unseen; all their
photos are on that side). Near-duplicates (stored twice, resized, re-encoded, or cropped around the same box) are on one
side: that of a held-out entity among them; one of another held-out kind is left out and counted. The content of photos
decides, not their ids or their order, so that the same photos are on the same sides from whatever source they come.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from mllm.boxes import Box, Frame
from mllm.data.near_duplicates import near_duplicates
from mllm.errors import FieldmarkError
from mllm.io.images import phash
from mllm.records import SPLITS, Photo, Split

_MINIATURE = (8, 8)


@dataclass(frozen=True, slots=True)
class Shares:
    """How the photos of seen entities are divided, and which entities are held out."""

    validation: float = 0.15
    test: float = 0.25
    unseen: float = 0.25
    """Share of each domain's entities that is held out: a third of these for validation, the others for test."""
    unseen_domains: tuple[str, ...] = ()
    """Domains that are held out entirely, for the test."""

    def __post_init__(self) -> None:
        for name in ("validation", "test", "unseen"):
            if not 0 <= getattr(self, name) < 1:
                raise FieldmarkError(f"share {name}: must be at least 0 and below 1, got {getattr(self, name)}")
        if (held := self.validation + self.test) >= 1:
            raise FieldmarkError(f"shares validation + test = {held:g} leave no photo for training")


@dataclass(slots=True)
class PhotoSplit:
    """Photos with their side (`split`, `use`, `group`), and what was left out and why."""

    photos: list[Photo]
    left_out: Counter[str] = field(default_factory=Counter)
    groups_joined: int = 0
    """Groups of more than one photo, i.e. near-duplicates found."""


def fingerprint(image: Image.Image, boxes: Sequence[Box] = ()) -> list[str]:
    """Return `phash-miniature` of a photo and of each box's crop: a cropped copy shares only the latter.

    For drawn photos pass no boxes: drawings of one species are similar without being duplicates.
    """
    views = [image]
    size = Frame(*image.size)
    for box in boxes:
        x1, y1, x2, y2 = (round(number) for number in box.to_xyxy(size))
        if min(x2 - x1, y2 - y1) >= 16:  # smaller crops are all similar
            views.append(image.crop((x1, y1, x2, y2)))
    return [f"{phash(view)}-{view.resize(_MINIATURE, Image.Resampling.BOX).tobytes().hex()}" for view in views]


def uses(entities: Mapping[tuple[str, str], Split | None], shares: Shares, seed: int) -> dict[tuple[str, str], Split]:
    """Decide for each (domain, entity) whether it is train, validation or test.

    The source may prescribe it (the value). Otherwise a stable hash orders the entities of a domain, and the first
    `shares.unseen` are held out: the first, fourth, seventh ... for validation, the others for test.
    """
    decided: dict[tuple[str, str], Split] = {}
    free: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, prescribed in sorted(entities.items()):
        if prescribed is not None:
            decided[key] = prescribed
        elif key[0] in shares.unseen_domains:
            decided[key] = "test"
        else:
            free[key[0]].append(key)
    for keys in free.values():
        keys.sort(key=lambda key: _order(seed, *key))
        held = round(len(keys) * shares.unseen)
        for index, key in enumerate(keys):
            decided[key] = "train" if index >= held else "validation" if index % 3 == 0 else "test"
    return decided


def split(photos: Sequence[Photo], fingerprints: Sequence[Iterable[str]], shares: Shares, seed: int) -> PhotoSplit:
    """Assign every photo to a side. `fingerprints` are the results of `fingerprint`, in the order of the photos.

    Drawn photos keep their order; others are ordered by their content.
    """
    prescribed: dict[tuple[str, str], Split | None] = {(photo.domain, photo.entity): photo.use for photo in photos}
    use = uses(prescribed, shares, seed)
    group_of = near_duplicates(fingerprints)
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(group_of):
        members[group].append(index)
    keys = [_key(photo.id, () if photo.drawn else prints) for photo, prints in zip(photos, fingerprints, strict=True)]
    side_of = _sides(photos, use, members, keys, shares, seed)
    result = PhotoSplit([], groups_joined=sum(len(group) > 1 for group in members.values()))
    for index in sorted(range(len(photos)), key=lambda index: "" if photos[index].drawn else keys[index]):
        photo = photos[index]
        side, kind = side_of[group_of[index]], use[photo.domain, photo.entity]
        if kind not in ("train", side):
            result.left_out[f"looks like a photo of the {side} side, its entity is for {kind}"] += 1
            continue
        result.photos.append(replace(photo, split=side, use=kind, group=photos[group_of[index]].id))
    return result


def long_tail(photos: Sequence[Photo], most: int, seed: int) -> list[Photo]:
    """Thin the training photos to a long tail: entity k (from 0) keeps most ** (1 - k / (n - 1)).

    The first keeps `most` photos (or all that it has), the last one. Other sides keep theirs.
    """
    entities = sorted({(photo.domain, photo.entity) for photo in photos if photo.split == "train"})
    entities.sort(key=lambda key: _order(seed, "tail", *key))
    steps = max(1, len(entities) - 1)
    left = {key: round(most ** (1 - place / steps)) for place, key in enumerate(entities)}
    kept = []
    keys = {photo.id: _key(photo.id, () if photo.drawn else photo.fingerprint) for photo in photos}
    for photo in sorted(photos, key=lambda photo: _order(seed, "tail", keys[photo.id])):
        if photo.split == "train":
            left[photo.domain, photo.entity] -= 1
        if photo.split != "train" or left[photo.domain, photo.entity] >= 0:
            kept.append(photo.id)
    ids = set(kept)
    return [photo for photo in photos if photo.id in ids]


def by_image(names: Sequence[str], fingerprints: Sequence[Iterable[str]], shares: Shares, seed: int) -> list[Split]:
    """Return the side of each image if there are no entities to hold out; near-duplicates share one.

    A hash of their content (of `names` without fingerprints) orders the groups of near-duplicates; the first fill the
    test, the next validation.
    """
    group_of = near_duplicates(fingerprints)
    sizes = Counter(group_of)
    keys: dict[int, list[str]] = defaultdict(list)
    for group, name, prints in zip(group_of, names, fingerprints, strict=True):
        keys[group].append(_key(name, prints))
    wanted = _counts(len(names), shares)
    side_of: dict[int, Split] = {}
    for group in sorted(sizes, key=lambda group: _order(seed, min(keys[group]))):
        side_of[group] = _most_wanted(wanted)
        wanted[side_of[group]] -= sizes[group]
    return [side_of[group] for group in group_of]


def _sides(
    photos: Sequence[Photo],
    use: Mapping[tuple[str, str], Split],
    members: Mapping[int, list[int]],
    keys: Sequence[str],
    shares: Shares,
    seed: int,
) -> dict[int, Split]:
    side_of: dict[int, Split] = {}
    of_entity: dict[tuple[str, str], list[int]] = defaultdict(list)
    for group, indices in members.items():
        kinds = {use[photos[index].domain, photos[index].entity] for index in indices}
        if kinds != {"train"}:
            side_of[group] = "test" if "test" in kinds else "validation"
        for entity in {(photos[index].domain, photos[index].entity) for index in indices}:
            of_entity[entity].append(group)
    for entity in sorted(of_entity):
        if use[entity] != "train":
            continue
        groups = sorted(of_entity[entity], key=lambda group: _order(seed, min(keys[row] for row in members[group])))
        wanted = _counts(len(groups), shares)
        wanted.subtract(side_of[group] for group in groups if group in side_of)
        for group in groups:
            if group not in side_of:
                side_of[group] = _most_wanted(wanted)
                wanted[side_of[group]] -= 1
    return side_of


def _counts(total: int, shares: Shares) -> Counter[Split]:
    """Divide the photos of an entity: training, then test, then validation get at least one each."""
    test = max(round(total * shares.test), 1 if shares.test else 0) if total >= 2 else 0
    validation = max(round(total * shares.validation), 1 if shares.validation else 0) if total >= 3 else 0
    counts: dict[Split, int] = {"train": total - test - validation, "validation": validation, "test": test}
    return Counter(counts)


def _most_wanted(wanted: Mapping[Split, int]) -> Split:
    """Return the last side that still wants a group; the first side if none does."""
    sides: list[Split] = [side for side in SPLITS if wanted[side] > 0]
    return sides[-1] if sides else SPLITS[0]


def _key(name: str, prints: Iterable[str]) -> str:
    """Return what stands for an image in the order of images: its content, or its name if nothing is known of it."""
    return next(iter(prints), name)


def _order(seed: int, *names: str) -> bytes:
    """Return a pseudo-random sort key, the same on every machine and independent of other entries."""
    return hashlib.sha256("/".join((str(seed), *names)).encode()).digest()
