"""Bags of look-alikes, mined from image embeddings: similar enough to be confused, but not the same image.

The published method (vectors of image plus captions, seeds in order of their neighbours' similarity, a threshold; the
script was not released) with an upper threshold and disjoint bags, so that an epoch is one pass over the images.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from mllm.errors import FieldmarkError, RecordError
from mllm.io.codec import Number, Record
from mllm.io.jsonl import read_jsonl
from mllm.records import Sample

EXACT = 100_000
"""Up to this many images every pair is compared; above, FAISS finds nearly all neighbours."""
LEVELS = ("easy", "medium", "hard")
"""Thirds of the range between the thresholds, least similar first."""
_BLOCK = 2048
_CELLS = 1 << 24
"""Similarities in memory at a time when every pair is compared: a few hundred megabytes for any number of images."""


@dataclass(frozen=True, slots=True)
class Bag(Record):
    """Look-alikes among which each caption has to retrieve its own image; `similarity` is the mean to the seed."""

    SCHEMA: ClassVar[str] = "fieldmark.bag/1"

    id: str
    members: tuple[str, ...]
    level: str = ""
    similarity: Number | None = None

    def __post_init__(self) -> None:
        if len(self.members) < 2 or len(set(self.members)) != len(self.members):
            raise RecordError(f"field members: two or more different ids are needed, got {list(self.members)}")


def join(images_ND: np.ndarray, texts_ND: np.ndarray | None = None) -> np.ndarray:  # noqa: N803
    """Return the vectors to mine, of length 1: images, or sums of normalised image and caption vectors."""
    found = _unit(images_ND)
    return found if texts_ND is None else _unit(found + _unit(texts_ND))


def band(lower: float, upper: float, level: str) -> tuple[float, float]:
    """Return the thresholds of a level: a third of the range."""
    if level not in LEVELS:
        raise FieldmarkError(f"unknown level of bags {level!r}; known: {', '.join(LEVELS)}")
    third = (upper - lower) / len(LEVELS)
    start = lower + LEVELS.index(level) * third
    return start, upper if level == LEVELS[-1] else start + third


def neighbours(
    vectors_ND: np.ndarray,  # noqa: N803
    count: int,
    lower: float,
    upper: float,
    *,
    exact: int = EXACT,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each vector's `count` nearest with lower <= similarity < upper: indices and similarities, (N, count).

    Missing neighbours are -1 and -inf. Above `exact` vectors FAISS (the extra `captions`) searches an HNSW graph for
    four times as many, of which those in the range are kept; it finds nearly all.
    """
    total = len(vectors_ND)
    if total > exact:
        return _approximate(vectors_ND, count, lower, upper)
    count = min(count, total)
    numbers, found = np.full((total, count), -1), np.full((total, count), -np.inf)
    rows = max(1, min(_BLOCK, _CELLS // total))
    for start in range(0, total, rows):
        block = (vectors_ND[start : start + rows] @ vectors_ND.T).astype(np.float64)
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        block[(block < lower) | (block >= upper)] = -np.inf
        best, values = _largest(block, count)
        found[start : start + rows] = values
        numbers[start : start + rows] = np.where(np.isfinite(values), best, -1)
    return numbers, found


def _largest(block: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and values of each row's `count` largest, largest first, equal values in order of their index.

    The result is that of a stable sort of whole rows, in a fraction of the time.
    """
    best = np.sort(np.argpartition(-block, count - 1, axis=1)[:, :count], axis=1)
    least = np.take_along_axis(block, best, 1).min(axis=1)
    # argpartition chose among equals arbitrarily
    tied = np.isfinite(least) & ((block >= least[:, None]).sum(axis=1) > count)
    best[tied] = np.sort(np.argsort(-block[tied], axis=1, kind="stable")[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(block, best, 1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, 1)
    return best, np.take_along_axis(block, best, 1)


def mine(
    vectors_ND: np.ndarray,  # noqa: N803
    size: int,
    lower: float,
    upper: float,
    *,
    exact: int = EXACT,
    near: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield disjoint bags of `size` image indices, the most similar first, with the mean similarity to their seed.

    `near`, if given, is the result of `neighbours` for the same thresholds, with at least `reach(size)` of each image.

    Every member's similarity to the seed lies in [lower, upper), and that of any two members below `upper`, so that no
    bag holds two copies of one image. An image with too few free neighbours is in no bag.
    """
    if not 2 <= size <= 20:
        raise FieldmarkError(f"bags have 2 to 20 images, got {size}")
    if not -1 <= lower < upper:
        raise FieldmarkError(f"-1 <= lower < upper is needed for similarities of look-alikes, got {lower} and {upper}")
    numbers, found = near or neighbours(vectors_ND, reach(size), lower, upper, exact=exact)
    numbers, found = numbers[:, : reach(size)], found[:, : reach(size)]
    nearest = np.where(np.isfinite(found), found, -1.0)[:, : size - 1].sum(1)
    used: set[int] = set()
    for seed in np.argsort(-nearest, kind="stable").tolist():
        if seed in used:
            continue
        bag, total = [seed], 0.0
        for other, value in zip(numbers[seed].tolist(), found[seed].tolist(), strict=True):
            if other < 0 or len(bag) == size:
                break
            if other not in used and (vectors_ND[bag] @ vectors_ND[other]).max() < upper:
                bag.append(other)
                total += value
        if len(bag) == size:
            used.update(bag)
            yield tuple(bag), total / (size - 1)


def reach(size: int) -> int:
    """Return the number of neighbours to examine for bags of `size`: more than needed, since some are used already."""
    return max(32, 4 * size)


def read(files: Iterable[Path]) -> list[Bag]:
    """Read bag files. Raises `RecordError` for a missing or broken file, naming file and line."""
    return [bag for file in files for bag in read_jsonl(file, Bag, unique="id")]


def shared(samples: Sequence[Sample]) -> list[Bag]:
    """Return the bags that samples name: two or more samples with the same `bag`, in the order of the samples."""
    members: dict[str, list[str]] = {}
    for sample in samples:
        if sample.bag is not None:
            members.setdefault(sample.bag, []).append(sample.id)
    return [Bag(name, tuple(ids)) for name, ids in members.items() if len(ids) > 1]


def _approximate(vectors: np.ndarray, count: int, lower: float, upper: float) -> tuple[np.ndarray, np.ndarray]:
    try:
        import faiss
    except ImportError:
        raise FieldmarkError(
            f"{len(vectors)} images are too many for every pair; `pip install fieldmark[captions]` installs FAISS"
        ) from None
    vectors = np.ascontiguousarray(vectors, np.float32)
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)  # pyright: ignore[reportCallIssue]
    wide = min(4 * count + 1, len(vectors))
    index.hnsw.efSearch = max(64, 2 * wide)
    count = min(count, wide)
    numbers = np.empty((len(vectors), count), np.int32)
    found = np.empty((len(vectors), count), np.float32)
    for start in range(0, len(vectors), _BLOCK):  # all at once would take several arrays of `wide` numbers per image
        part = slice(start, start + _BLOCK)
        values, near = index.search(vectors[part], wide)  # pyright: ignore[reportCallIssue]
        values = values.astype(np.float64)
        own = near == np.arange(start, start + len(near))[:, None]
        values = np.where(own | (near < 0) | (values < lower) | (values >= upper), -np.inf, values)
        best = np.argsort(-values, axis=1, kind="stable")[:, :count]
        found[part] = np.take_along_axis(values, best, 1)
        numbers[part] = np.where(np.isfinite(found[part]), np.take_along_axis(near, best, 1), -1)
    return numbers, found


def chop(families: Iterable[Sequence[str]], size: int, level: str) -> list[Bag]:
    """Cut families of look-alikes into bags of `size`, in order; the rest of a family is in no bag."""
    starts = ((family, start) for family in families for start in range(0, len(family) - size + 1, size))
    cut = enumerate(tuple(family[start : start + size]) for family, start in starts)
    return [Bag(f"{size}-{level}-{number:06d}", members, level) for number, members in cut]


def check(bags: Sequence[Bag], known: Sequence[str]) -> None:
    """Refuse bags that overlap within one size or name unknown samples."""
    ids, seen = set(known), set()
    for bag in bags:
        for member in bag.members:
            if member not in ids:
                raise RecordError(f"bag {bag.id}: field members: no sample {member!r}")
            if (len(bag.members), member) in seen:
                raise RecordError(f"bag {bag.id}: sample {member!r} is in another bag of {len(bag.members)} already")
            seen.add((len(bag.members), member))


def _unit(vectors: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(size > 0, size, 1.0)
