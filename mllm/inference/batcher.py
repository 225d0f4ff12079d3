"""Calls of several threads are gathered into batches, since a model answers eight questions almost as fast as one.

One thread of its own works on one batch at a time. While it works, calls queue up and become the next batch, so that
nobody waits for companions that do not come: a first call waits `patience` seconds at most.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Gatherer(Generic[T, R]):
    """A queue in front of a function that works on batches.

    Args:
        work: takes 1 to `most` items and returns as many results, in order. What it raises, all its callers get.
        most: items in a batch, at most.
        patience: seconds that the first item of a batch waits for others; 0 takes what is there.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], *, most: int, patience: float = 0.01) -> None:
        self._work, self._most, self._patience = work, most, patience
        self._waiting: deque[tuple[T, Future[R]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="gatherer", daemon=True)
        self._thread.start()

    def submit(self, item: T) -> Future[R]:
        """Queue an item and return at once. Raises RuntimeError after `close`.

        A future that is cancelled while it waits is never worked on.
        """
        future: Future[R] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the gatherer is closed")
            self._waiting.append((item, future))
            self._changed.notify()
        return future

    def __call__(self, item: T) -> R:
        """Queue an item and wait for its result."""
        return self.submit(item).result()

    def close(self) -> None:
        """Finish what is queued, then stop the thread. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                results = self._work([item for item, _ in batch])
                if len(results) != len(batch):
                    raise RuntimeError(f"{len(results)} results came back for {len(batch)} calls")
            except BaseException as error:  # every caller gets it; one who waits for ever would be worse
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)

    def _next(self) -> list[tuple[T, Future[R]]]:
        """Wait for the next batch; empty when closed and nothing is left."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            latest = time.monotonic() + self._patience
            while len(self._waiting) < self._most and not self._closed:
                left = latest - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch: list[tuple[T, Future[R]]] = []
            while self._waiting and len(batch) < self._most:
                item, future = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((item, future))
            if batch or self._closed:
                return batch
        return self._next()  # all of them were cancelled
