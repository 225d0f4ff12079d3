"""Bags stay whole, epochs are one pass, stages change between epochs, and everybody agrees: properties and examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mllm.errors import ConfigError
from mllm.training.grpo.bag_sampler import PUBLISHED, BagSampler, Schedule


@st.composite
def samplers(draw: st.DrawFn) -> BagSampler:
    batch = draw(st.integers(2, 12))
    rows = draw(st.integers(batch, 60))
    sizes = draw(st.lists(st.integers(2, batch), min_size=1, max_size=3, unique=True))
    bags = {}
    for size in sizes:
        if size > rows:
            continue
        order = draw(st.permutations(range(rows)))
        count = draw(st.integers(1, rows // size))
        bags[size] = [tuple(order[k * size : (k + 1) * size]) for k in range(count)]
    stages = tuple((draw(st.integers(1, 3)), size) for size in sorted(bags))
    return BagSampler(rows, bags, Schedule(stages), batch, draw(st.integers(1, 3)), draw(st.integers(1, 2)))


@given(samplers(), st.integers(0, 8))
def test_bags_are_whole_and_no_image_comes_twice(sampler: BagSampler, epoch: int) -> None:
    size = sampler.schedule.size(epoch)
    batches = sampler.batches(epoch)
    assert len(batches) == sampler.rows // sampler.batch
    seen = [row for batch in batches for row, _ in batch]
    assert len(set(seen)) == len(seen) == len(batches) * sampler.batch
    for batch in batches:
        for bag, count in Counter(bag for _, bag in batch if bag >= 0).items():
            assert count == size
            assert {row for row, own in batch if own == bag} == set(sampler.bags[size][bag])
    info = sum(bag >= 0 for batch in batches for _, bag in batch) // size
    assert info == min(len(sampler.bags[size]), len(batches) * (sampler.batch // size)), (
        "as many bags as there is room for"
    )


@given(samplers(), st.integers(0, 5))
def test_numbers_come_in_groups_and_can_be_read(sampler: BagSampler, epoch: int) -> None:
    sampler.set_epoch(epoch)
    numbers = list(sampler)
    assert len(numbers) == len(sampler) and (not numbers or max(numbers) < sampler.virtual_rows)
    step = sampler.batch * sampler.generations
    for start, batch in zip(range(0, len(numbers), step * sampler.repeats), sampler.batches(epoch), strict=True):
        block = numbers[start : start + step]
        for repeat in range(sampler.repeats):
            assert numbers[start + repeat * step : start + (repeat + 1) * step] == block
        assert all(len(set(block[k : k + sampler.generations])) == 1 for k in range(0, step, sampler.generations))
        for number, (row, bag) in zip(block[:: sampler.generations], batch, strict=True):
            size = sampler.schedule.size(epoch)
            assert sampler.read(number) == (row, None if bag < 0 else f"{size}/{bag}")


@given(samplers(), st.integers(0, 4))
def test_a_run_that_goes_on_takes_the_same_batches(sampler: BagSampler, epoch: int) -> None:
    for before in range(epoch):
        sampler.set_epoch(before)
        list(sampler)
    sampler.set_epoch(epoch)
    fresh = replace(sampler, epoch=epoch)
    assert list(fresh) == list(sampler)


def test_epochs_are_shuffled_anew() -> None:
    sampler = BagSampler(12, {2: [(0, 1), (2, 3), (4, 5)]}, Schedule(((9, 2),)), 4, 1)
    orders = {tuple(map(tuple, sampler.batches(epoch))) for epoch in range(5)}
    assert len(orders) == 5


def test_the_published_schedule() -> None:
    sizes = [Schedule().size(epoch) for epoch in range(22)]
    assert sizes == [2] * 3 + [3] * 5 + [5] * 2 + [7] * 2 + [10] * 2 + [15] * 3 + [20] * 5
    assert sum(epochs for epochs, _ in PUBLISHED) == 20


def test_a_stage_ends_early_when_retrieval_saturates_and_only_then() -> None:
    schedule = Schedule(((3, 2), (3, 5), (3, 7)), saturation=0.9)
    assert [schedule.size(epoch, {}) for epoch in range(7)] == [2, 2, 2, 5, 5, 5, 7]
    assert [schedule.size(epoch, {0: 0.95, 1: 0.5, 2: 0.9}) for epoch in range(4)] == [2, 5, 5, 7]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_one_batch(world: int) -> None:
    """accelerate gives process r every world-th batch: together they are one generation batch."""
    from accelerate.data_loader import BatchSamplerShard

    sampler = BagSampler(36, {5: [tuple(range(k, k + 5)) for k in range(0, 30, 5)]}, Schedule(((9, 5),)), 12, 2)
    loader = DataLoader(range(sampler.virtual_rows), sampler=sampler, batch_size=24 // world)
    shards = [list(BatchSamplerShard(loader.batch_sampler, world, rank)) for rank in range(world)]
    for step, batch in enumerate(sampler.batches(0)):
        together = [number for shard in shards for number in shard[step]]
        assert sorted(sampler.read(number)[0] for number in set(together)) == sorted(row for row, _ in batch)


def test_accelerate_tells_it_the_epoch() -> None:
    from accelerate.data_loader import prepare_data_loader

    sampler = BagSampler(12, {2: [(0, 1)]}, Schedule(((9, 2),)), 4, 1)
    loader = prepare_data_loader(DataLoader(range(24), sampler=sampler, batch_size=4), num_processes=1, process_index=0)
    loader.set_epoch(3)  # pyright: ignore[reportAttributeAccessIssue]  (accelerate's own loader)
    assert sampler.epoch == 3


@pytest.mark.parametrize(
    "bags,batch,says",
    [
        ({3: [(0, 1, 2)]}, 2, "do not fit"),
        ({2: []}, 4, "mine them first"),
        ({2: [(0, 1), (1, 2)]}, 4, "no image may be in two"),
        ({2: [(0, 1, 2)]}, 4, "needs 2 images"),
        ({2: [(0, 99)]}, 4, "row 99"),
        ({2: [(0, 1)]}, 20, "do not fill"),
    ],
)
def test_impossible_bags_are_refused(bags: dict, batch: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BagSampler(12, bags, Schedule(((1, next(iter(bags))),)), batch, 1)


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ConfigError, match="epochs"):
        Schedule(())
    with pytest.raises(ConfigError, match="saturation"):
        Schedule(saturation=2.0)
