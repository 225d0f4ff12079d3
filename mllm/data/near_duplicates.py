"""Photos that look alike, found among millions without comparing every pair.

A fingerprint is a 64-bit perceptual hash and an 8 x 8 miniature. Two photos look alike when their hashes differ in at
most `HASH_BITS` bits and their miniatures by at most `COLOUR_STEPS`. Cut into three parts, two such hashes differ in at
most two bits of at least one part (the pigeonhole), so it is enough to look up every part with up to two bits turned:
multi-index hashing (Norouzi, Punjani and Fleet 2012, arXiv 1307.2982). Nothing is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

HASH_BITS = 8
"""Photos whose 64-bit perceptual hashes differ in at most so many bits may be the same image ..."""
COLOUR_STEPS = 14.0
"""... and are, when their 8 x 8 miniatures differ by at most so much on average (0..255): hashes see no colour."""
FEW = 8_192
"""Up to so many prints every pair is compared, which is quicker than looking parts up."""
_CHUNK = 2048
_PAIRS = 1 << 21
"""So many pairs are held at a time: some hundred megabytes with their miniatures."""
_PARTS = ((0, 22), (22, 21), (43, 21))
"""First bit and width of the three parts of a hash."""
Pairs = tuple[np.ndarray, np.ndarray]
"""Numbers of two prints each, the smaller first."""


def near_duplicates(fingerprints: Sequence[Iterable[str]]) -> list[int]:
    """Return the group of each photo: the lowest index among the photos that it looks like, over any chain.

    Each photo has prints of the form `hash-miniature`, both hexadecimal. Time grows with the photos and with the pairs
    whose hashes share a part, not with the square of the photos; memory holds the prints and a few million pairs.
    """
    parent = list(range(len(fingerprints)))
    first: dict[str, int] = {}
    owners: list[int] = []
    for owner, prints in enumerate(fingerprints):
        for one in prints:
            if one in first:  # copies are joined here: each pair of many of them would be a square again
                _join(parent, first[one], owner)
            else:
                first[one] = owner
                owners.append(owner)
    if first:
        hash_N = np.array([int(one.partition("-")[0], 16) for one in first], np.uint64)  # noqa: N806
        small_NC = np.frombuffer(  # noqa: N806
            b"".join(bytes.fromhex(one.partition("-")[2]) for one in first), np.uint8
        ).reshape(len(first), -1)
        pairs = by_blocks(hash_N) if len(hash_N) <= FEW else by_parts(hash_N)
        for a, b in pairs:
            apart = np.abs(small_NC[a].astype(np.int16) - small_NC[b]).mean(axis=1)
            for left, right in zip(a[apart <= COLOUR_STEPS].tolist(), b[apart <= COLOUR_STEPS].tolist(), strict=True):
                _join(parent, owners[left], owners[right])
    return [_root(parent, index) for index in range(len(parent))]


def by_blocks(hash_N: np.ndarray) -> Iterator[Pairs]:  # noqa: N803
    """Yield the pairs of hashes that are close, by comparing all, in blocks."""
    for start in range(0, len(hash_N), _CHUNK):
        for other in range(start, len(hash_N), _CHUNK):
            block = hash_N[start : start + _CHUNK, None] ^ hash_N[None, other : other + _CHUNK]
            rows, columns = np.nonzero(np.bitwise_count(block) <= HASH_BITS)
            a, b = rows + start, columns + other
            yield a[a < b], b[a < b]


def by_parts(hash_N: np.ndarray) -> Iterator[Pairs]:  # noqa: N803
    """Yield the pairs of hashes that are close, by looking their parts up. Some come more than once."""
    for shift, width in _PARTS:
        part_N = ((hash_N >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int32)  # noqa: N806
        order_N = np.argsort(part_N, kind="stable")  # noqa: N806
        part_N, sorted_N = part_N[order_N], hash_N[order_N]  # noqa: N806  (in order, look-ups run through memory once)
        starts = np.concatenate([[0], np.cumsum(np.bincount(part_N, minlength=1 << width))]).astype(np.int32)
        for turned in _turned(width):
            # Of a pair whose parts differ in these bits one has the highest of them at 0: it looks for the other.
            asking = np.arange(len(part_N)) if turned == 0 else np.nonzero(~part_N & (1 << turned.bit_length() - 1))[0]
            wanted = part_N[asking] ^ turned
            for a, b in _spread(asking, starts[wanted], starts[wanted + 1]):
                close = (np.bitwise_count(sorted_N[a] ^ sorted_N[b]) <= HASH_BITS) & ((a < b) | (turned != 0))
                if close.any():
                    one, other = order_N[a[close]], order_N[b[close]]
                    yield np.minimum(one, other), np.maximum(one, other)


def _turned(width: int) -> list[int]:
    """Every number of `width` bits with at most as many set as a third of the bits that may differ."""
    most = HASH_BITS // len(_PARTS)
    return [sum(1 << bit for bit in bits) for count in range(most + 1) for bits in combinations(range(width), count)]


def _spread(asking: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[Pairs]:
    """Yield each asker beside every place from its start to its end, at most `_PAIRS` or one asker's at a time."""
    counts = ends - starts
    asking, starts, counts = asking[counts > 0], starts[counts > 0], counts[counts > 0]
    upto = np.cumsum(counts)
    begin = 0
    while begin < len(asking):
        done = upto[begin - 1] if begin else 0
        end = max(int(np.searchsorted(upto, done + _PAIRS, side="right")), begin + 1)
        many = counts[begin:end]
        firsts = np.cumsum(many) - many
        offsets = np.arange(many.sum()) - np.repeat(firsts, many)
        yield np.repeat(asking[begin:end], many), np.repeat(starts[begin:end], many) + offsets
        begin = end


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def _join(parent: list[int], a: int, b: int) -> None:
    a, b = sorted((_root(parent, a), _root(parent, b)))
    parent[b] = a
