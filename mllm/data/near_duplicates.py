"""Near-duplicate photos, found among millions without comparing every pair.

Fingerprints are 64-bit perceptual hashes with 8 x 8 miniatures. Of hashes cut into three parts, two that differ in at
most `HASH_BITS` bits differ in at most two in some part, so it suffices to look up every part with up to two bits
flipped: multi-index hashing (Norouzi, Punjani and Fleet 2012, arXiv 1307.2982). The search is exact.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

HASH_BITS = 8
"""Maximum difference, in bits, of the perceptual hashes of near-duplicates."""
COLOUR_STEPS = 14.0
"""Maximum mean difference (0..255) of their miniatures: the hashes ignore colour."""
FEW = 8_192
"""Up to this many prints every pair is compared, which is faster than the lookup of parts."""
_CHUNK = 2048
_PAIRS = 1 << 21
"""Pairs in memory at a time: a few hundred megabytes with their miniatures."""
_PARTS = ((0, 22), (22, 21), (43, 21))
"""First bit and width of the three parts of a hash."""
Pairs = tuple[np.ndarray, np.ndarray]
"""Indices of two prints each, the smaller first."""


def near_duplicates(fingerprints: Sequence[Iterable[str]]) -> list[int]:
    """Return the group of each photo: the lowest index among its near-duplicates, their near-duplicates, and so on.

    Each photo has prints of the form `hash-miniature`, both hexadecimal. Time grows with the number of photos and of
    pairs whose hashes share a part, not quadratically; memory holds the prints and a few million pairs.
    """
    parent = list(range(len(fingerprints)))
    first: dict[str, int] = {}
    owners: list[int] = []
    for owner, prints in enumerate(fingerprints):
        for one in prints:
            if one in first:  # join copies here: comparing all pairs of them would be quadratic
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
    """Yield all pairs of close hashes by comparing every pair, in blocks."""
    for start in range(0, len(hash_N), _CHUNK):
        for other in range(start, len(hash_N), _CHUNK):
            block = hash_N[start : start + _CHUNK, None] ^ hash_N[None, other : other + _CHUNK]
            rows, columns = np.nonzero(np.bitwise_count(block) <= HASH_BITS)
            a, b = rows + start, columns + other
            yield a[a < b], b[a < b]


def by_parts(hash_N: np.ndarray) -> Iterator[Pairs]:  # noqa: N803
    """Yield all pairs of close hashes by looking up their parts. Some pairs occur more than once."""
    for shift, width in _PARTS:
        part_N = ((hash_N >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int32)  # noqa: N806
        order_N = np.argsort(part_N, kind="stable")  # noqa: N806
        part_N, sorted_N = part_N[order_N], hash_N[order_N]  # noqa: N806  (sorted, so that lookups scan memory once)
        starts = np.concatenate([[0], np.cumsum(np.bincount(part_N, minlength=1 << width))]).astype(np.int32)
        most = HASH_BITS // len(_PARTS)
        flips = [bits for count in range(most + 1) for bits in combinations(range(width), count)]
        for flipped in (sum(1 << bit for bit in bits) for bits in flips):
            # Of two parts that differ in these bits one has a 0 in the highest: only that one looks up the other.
            highest = 1 << flipped.bit_length() >> 1
            asking = np.nonzero(~part_N & highest)[0] if flipped else np.arange(len(part_N))
            wanted = part_N[asking] ^ flipped
            for a, b in _ranges(asking, starts[wanted], starts[wanted + 1]):
                close = (np.bitwise_count(sorted_N[a] ^ sorted_N[b]) <= HASH_BITS) & ((a < b) | (flipped != 0))
                if close.any():
                    one, other = order_N[a[close]], order_N[b[close]]
                    yield np.minimum(one, other), np.maximum(one, other)


def _ranges(asking: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Iterator[Pairs]:
    """Pair each element with every index from its start to its end; at most `_PAIRS`, or one element, at a time."""
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
