"""Rows made by any number of processes, stopped any number of times, give one file; real processes: test_grounding."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.boxes import Box, Frame
from mllm.distributed import World
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.records import Photo
from mllm.synthesis.shards import Shards
from tests.support.photos import one_kind


@dataclass(frozen=True, slots=True)
class Alone(World):
    """A process of a world whose others are played by the test, one after the other."""

    def barrier(self) -> None:
        return None


def row(number: int) -> Photo:
    return one_kind(f"p{number}", "x", Frame(4, 4), "bird", "wren", (Box(0, 0, 1, 1),))


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_stops_and_changing_world_sizes_end_with_the_same_file(
    sizes: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, rng, numbers = tmp_path_factory.mktemp("world"), random.Random(seed), list(range(13))
    for turn, size in enumerate(sizes):
        world = [Alone(rank, size) for rank in range(size)]
        shards = [Shards(folder / "rows.jsonl", one) for one in world]
        todo = [n for n in numbers if f"p{n}" not in shards[0].done]
        for one, shard in zip(world, shards, strict=True):
            mine = one.shard(todo)
            last = turn == len(sizes) - 1
            for n in mine if last else mine[: rng.randint(0, len(mine))]:
                shard.add(row(n))
            if not last and shard.log.exists() and rng.random() < 0.5:
                shard.log.write_bytes(shard.log.read_bytes()[: -rng.randint(1, 40)])  # killed while it wrote
    shards[0].close(lambda key: int(key[1:]))
    write_jsonl(folder / "whole.jsonl", map(row, numbers))
    assert (folder / "rows.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["rows.jsonl", "whole.jsonl"]
    assert Shards(folder / "rows.jsonl", Alone()).finished


def test_a_row_is_written_once(tmp_path: Path) -> None:
    first = Shards(tmp_path / "rows.jsonl", Alone())
    first.add(row(1))
    again = Shards(tmp_path / "rows.jsonl", Alone())
    assert again.done == {"p1"}
    again.add(row(1))
    again.add(row(0))
    again.close(lambda key: key)
    assert [one.id for one in read_jsonl(tmp_path / "rows.jsonl", Photo)] == ["p0", "p1"]


def test_the_shares_are_all_and_no_more() -> None:
    shares = [Alone(rank, 3).shard(range(10)) for rank in range(3)]
    assert sorted(n for share in shares for n in share) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_a_launcher_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert World.current() == World(0, 1) and World.current().is_main
    World.current().barrier()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert World.current() == World(3, 8) and not World.current().is_main
