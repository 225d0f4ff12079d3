"""Calls of several threads share batches; results find their callers; no caller waits forever."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mllm.inference.batcher import Batcher


class Gated:
    """Work that says when it has started, waits until it may end, and keeps the batches that it got."""

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()
        self.seen: list[list[object]] = []

    def __call__(self, items: list) -> list:
        self.seen.append(list(items))
        self.started.set()
        self.go.wait(20)
        return items


def test_results_find_their_callers_in_batches_of_bounded_size() -> None:
    sizes: list[int] = []

    def work(items):
        sizes.append(len(items))
        return [10 * item for item in items]

    batcher = Batcher(work, max_batch=4, max_wait=0.05)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(batcher, range(40))) == [10 * k for k in range(40)]
    batcher.close()
    assert sum(sizes) == 40 and max(sizes) == 4 and len(sizes) < 40


def test_what_arrives_during_a_batch_is_the_next_one() -> None:
    work = Gated()
    batcher = Batcher(work, max_batch=8, max_wait=0)
    first = batcher.submit(0)
    assert work.started.wait(20)
    others = [batcher.submit(k) for k in range(1, 5)]
    others[1].cancel()
    work.go.set()
    assert first.result(20) == 0 and [others[k].result(20) for k in (0, 2, 3)] == [1, 3, 4]
    batcher.close()
    assert work.seen == [[0], [1, 3, 4]], "one that was cancelled is not worked on"


def test_errors_reach_every_caller_and_the_next_batch_goes_well() -> None:
    def work(items):
        if "bad" in items:
            raise ValueError("no")
        return items if "short" not in items else []

    batcher = Batcher(work, max_batch=4, max_wait=0)
    with pytest.raises(ValueError, match="no"):
        batcher("bad")
    with pytest.raises(RuntimeError, match="0 results came back for 1 calls"):
        batcher("short")
    assert batcher("good") == "good"
    batcher.close()
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit("late")


def test_closing_finishes_what_is_queued() -> None:
    go = threading.Event()
    batcher = Batcher(lambda items: [go.wait(20) and item for item in items], max_batch=1, max_wait=0)
    futures = [batcher.submit(k) for k in range(1, 4)]
    go.set()
    batcher.close()
    assert [future.result(0) for future in futures] == [1, 2, 3]


def test_callers_take_turns_whoever_queued_the_most() -> None:
    work = Gated()
    batcher = Batcher(work, max_batch=3, max_wait=0)
    futures = [batcher.submit("first", "a")]
    assert work.started.wait(20)
    futures += [batcher.submit(f"a{k}", "a") for k in range(5)]
    futures += [batcher.submit(f"b{k}", "b") for k in range(2)]
    futures += [batcher.submit("c0", "c")]
    work.go.set()
    assert [future.result(20) for future in futures][-1] == "c0"
    batcher.close()
    assert work.seen == [["first"], ["a0", "b0", "c0"], ["a1", "b1", "a2"], ["a3", "a4"]]


def test_thousands_of_cancelled_calls_leave_the_queue_alive() -> None:
    work = Gated()
    batcher = Batcher(work, max_batch=2, max_wait=0)
    batcher.submit(0)
    assert work.started.wait(20)
    for future in [batcher.submit(k, k % 3) for k in range(5000)]:
        future.cancel()
    work.go.set()
    assert batcher.submit("after").result(20) == "after"
    batcher.close()


def test_several_threads_work_at_once() -> None:
    both = threading.Barrier(2, timeout=20)
    batcher = Batcher(lambda items: [both.wait() >= 0 for _ in items], max_batch=1, max_wait=0, threads=2)
    futures = [batcher.submit(k) for k in range(4)]
    assert all(future.result(20) for future in futures)
    start = time.monotonic()
    batcher.close()
    assert time.monotonic() - start < 5
