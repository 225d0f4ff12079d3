"""Look-alikes found by parts of their hashes are those that comparing every pair finds."""

from __future__ import annotations

import numpy as np
import pytest

from mllm.data.near_duplicates import HASH_BITS, by_blocks, by_parts, near_duplicates


def hashes(count: int, seed: int) -> np.ndarray:
    """Random hashes, a third of them copies of others with up to twelve bits turned."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 2**64, count, dtype=np.uint64)
    for place in range(count // 3):
        turned = made[rng.integers(count // 3, count)]
        for bit in rng.choice(64, rng.integers(0, 13), replace=False):
            turned ^= np.uint64(1) << np.uint64(bit)
        made[place] = turned
    return made


def pairs(found) -> set[tuple[int, int]]:
    return {(a, b) for some in found for a, b in zip(*(side.tolist() for side in some), strict=True)}


@pytest.mark.parametrize("seed", range(3))
def test_the_same_pairs_either_way(seed: int) -> None:
    made = hashes(1500, seed)
    every = pairs(by_blocks(made))
    assert len(every) > 200 and all(a < b for a, b in every)
    assert pairs(by_parts(made)) == every


def test_eight_bits_are_near_wherever_they_lie_and_nine_are_not() -> None:
    one = 0x0123_4567_89AB_CDEF
    for places in (range(8), range(28, 36), range(56, 64), range(0, 64, 8), range(0, 24, 3)):
        other = one
        for bit in places:
            other ^= 1 << bit
        assert pairs(by_parts(np.array([other, one], np.uint64))) == {(0, 1)}
        ninth = next(bit for bit in range(64) if bit not in places)
        assert not pairs(by_parts(np.array([other ^ (1 << ninth), one], np.uint64)))
    assert HASH_BITS == len(range(8))


def test_few_pairs_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = hashes(400, 5)
    monkeypatch.setattr("mllm.data.near_duplicates._PAIRS", 7)
    assert pairs(by_parts(made)) == pairs(by_blocks(made))


def test_groups_are_chains_and_take_both_hash_and_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 is like 1, 1 is like 2, 2 is not like 0; 3 has 0's hash and another colour; 4 is a copy of 2."""
    grey, bright = bytes([100] * 192).hex(), bytes([100 + 15] * 192).hex()
    prints = [
        [f"{0x00:016x}-{grey}"], [f"{0xFF:016x}-{grey}"], [f"{0xFFFF:016x}-{grey}"], [f"{0:016x}-{bright}"],
        [f"{0xFFFF:016x}-{grey}"],
    ]  # fmt: skip
    assert near_duplicates(prints) == [0, 0, 0, 3, 0]
    monkeypatch.setattr("mllm.data.near_duplicates.FEW", 0)
    assert near_duplicates(prints) == [0, 0, 0, 3, 0]
    assert near_duplicates([[], [f"{0:016x}-{grey}", f"{1:016x}-{bright}"], []]) == [0, 1, 2]


def test_many_copies_of_one_image_are_no_square() -> None:
    """The 200 million pairs of 20,000 copies would be compared without the short cut for equal prints."""
    grey = bytes([100] * 192).hex()
    assert near_duplicates([[f"{7:016x}-{grey}"]] * 20_000) == [0] * 20_000
