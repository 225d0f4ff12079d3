"""Mined bags: in the band, disjoint, without copies, the most alike first; neighbours against a slow search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mllm.data import bags
from mllm.data.bags import Bag, band, check, join, mine, neighbours
from mllm.errors import FieldmarkError, RecordError
from mllm.io.jsonl import read_jsonl, write_jsonl


def cloud(count: int, seed: int = 0, width: int = 8) -> np.ndarray:
    return join(np.random.default_rng(seed).normal(size=(count, width)) + 1.0)


def test_neighbours_are_those_of_a_slow_search() -> None:
    vectors = cloud(60)
    numbers, found = neighbours(vectors, 5, 0.3, 0.9)
    for row in range(60):
        slow = sorted(
            (
                (float(vectors[row] @ vectors[k]), -k)
                for k in range(60)
                if k != row and 0.3 <= vectors[row] @ vectors[k] < 0.9
            ),
            reverse=True,
        )[:5]
        assert [int(n) for n in numbers[row] if n >= 0] == [-k for _, k in slow]
        assert found[row][: len(slow)] == pytest.approx([value for value, _ in slow])
        assert (found[row][len(slow) :] == -np.inf).all()


@pytest.mark.parametrize("size", [2, 3, 5, 10])
def test_bags_keep_to_the_thresholds_and_apart(size: int) -> None:
    vectors = cloud(200)
    made = list(mine(vectors, size, 0.5, 0.95))
    assert made
    members = [k for bag, _ in made for k in bag]
    assert len(set(members)) == len(members)
    for bag, alike in made:
        inside = vectors[list(bag)] @ vectors[list(bag)].T
        assert (inside[0, 1:] >= 0.5).all() and (inside[np.triu_indices(size, 1)] < 0.95).all()
        assert alike == pytest.approx(inside[0, 1:].mean())


def test_copies_are_kept_out_of_a_bag() -> None:
    """Two copies of one image, and two that look like it: a bag of three takes one copy only."""
    base = np.eye(4)[0]
    near, other = join(base + 0.5 * np.eye(4)[1]), join(base + 0.5 * np.eye(4)[2])
    vectors = np.stack([base, base, near, other])
    ((bag, _),) = mine(vectors, 3, 0.5, 0.99)
    assert {2, 3} < set(bag) and len({0, 1} & set(bag)) == 1


def test_the_most_alike_come_first() -> None:
    made = [alike for _, alike in mine(cloud(100), 2, 0.0, 0.999)]
    assert made[0] == max(made)


def test_faiss_finds_what_the_exact_search_finds() -> None:
    pytest.importorskip("faiss")
    vectors = cloud(400, width=6)
    exact, _ = neighbours(vectors, 4, 0.2, 0.97)
    near, found = neighbours(vectors, 4, 0.2, 0.97, exact=0)
    same = np.mean(
        [len(set(a[a >= 0]) & set(b[b >= 0])) / max(1, (a >= 0).sum()) for a, b in zip(exact, near, strict=True)]
    )
    assert same > 0.75  # of those in the band; neighbours beyond the upper threshold take places in its search
    values = found[np.isfinite(found)]
    assert ((values >= 0.2) & (values < 0.97)).all()


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both searches go through the images in blocks, so that memory does not grow with their square."""
    pytest.importorskip("faiss")
    vectors = cloud(150, seed=3)
    whole = [neighbours(vectors, 5, -1.0, 0.9, exact=exact) for exact in (1000, 0)]
    monkeypatch.setattr(bags, "_BLOCK", 7)
    for (numbers, found), exact in zip(whole, (1000, 0), strict=True):
        again = neighbours(vectors, 5, -1.0, 0.9, exact=exact)
        assert np.array_equal(again[0], numbers) and np.allclose(again[1], found, atol=1e-6)
    monkeypatch.setattr(bags, "_CELLS", 1)
    assert np.array_equal(neighbours(vectors, 5, -1.0, 0.9)[0], whole[0][0])


def test_of_equals_the_first_come_first() -> None:
    """The largest of each row are those of a stable sort, ties at the last place included."""
    rng = np.random.default_rng(0)
    for count in (1, 3, 8):
        block = rng.integers(0, 4, (40, 8)).astype(float)
        block[rng.random(block.shape) < 0.3] = -np.inf
        best, values = bags._largest(block, count)
        slow = np.argsort(-block, axis=1, kind="stable")[:, :count]
        assert np.array_equal(values, np.take_along_axis(block, slow, 1))
        finite = np.isfinite(values)
        assert np.array_equal(best[finite], slow[finite])


@pytest.mark.parametrize("size", [2, 5, 20])
def test_one_search_serves_bags_of_every_size(size: int) -> None:
    vectors = cloud(300, seed=4)
    near = neighbours(vectors, bags.reach(20), 0.3, 0.97)
    assert list(mine(vectors, size, 0.3, 0.97, near=near)) == list(mine(vectors, size, 0.3, 0.97))


def test_levels_cut_the_range_in_three() -> None:
    assert band(0.3, 0.9, "easy") == pytest.approx((0.3, 0.5))
    assert band(0.3, 0.9, "medium") == pytest.approx((0.5, 0.7))
    assert band(0.3, 0.9, "hard") == pytest.approx((0.7, 0.9))
    with pytest.raises(FieldmarkError, match="easy, medium, hard"):
        band(0, 1, "harder")


def test_captions_take_part() -> None:
    images = np.array([[1.0, 0], [1.0, 0]])
    joined = join(images, np.array([[3.0, 0], [0, 0.5]]))
    assert joined == pytest.approx(np.array([[1, 0], [2**-0.5, 2**-0.5]]))
    assert join(images, np.zeros((2, 2))) == pytest.approx(images), "without captions the image speaks alone"


def test_bags_are_records(tmp_path: Path) -> None:
    rows = [Bag("2-hard-0", ("a", "b"), "hard", 0.9)]
    write_jsonl(tmp_path / "bags.jsonl", rows)
    assert list(read_jsonl(tmp_path / "bags.jsonl", Bag)) == rows
    check(rows, ["a", "b"])
    with pytest.raises(RecordError, match="no sample 'b'"):
        check(rows, ["a"])
    with pytest.raises(RecordError, match="'a' is in another bag of 2"):
        check([*rows, Bag("x", ("a", "c"))], ["a", "b", "c"])
    with pytest.raises(RecordError, match="two or more"):
        Bag("x", ("a", "a"))


@pytest.mark.parametrize("size,lower,upper", [(1, 0.1, 0.9), (21, 0.1, 0.9), (3, 0.9, 0.1)])
def test_impossible_wishes_are_refused(size: int, lower: float, upper: float) -> None:
    with pytest.raises(FieldmarkError):
        list(mine(cloud(5), size, lower, upper))
