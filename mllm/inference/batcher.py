"""Dynamic batching: calls of several threads are answered in batches, which cost little more than a single call.

Callers take turns: a batch takes one call of each caller, then a second one of each, whoever queued the most.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from mllm.inference.turns import Turns

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """A queue in front of a function that works on batches.

    Args:
        work: takes 1 to `max_batch` items and returns as many results, in order. All its callers get its exception.
        max_batch: items in a batch, at most.
        max_wait: seconds that the first item of a batch waits for others; 0 takes what is queued.
        threads: batches worked on at the same time.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        *,
        max_batch: int,
        max_wait: float = 0.01,
        threads: int = 1,
    ) -> None:
        self._work, self._max_batch, self._max_wait = work, max_batch, max_wait
        self._queue: Turns[tuple[T, Future[R]]] = Turns()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name="batcher", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, item: T, caller: Hashable = None) -> Future[R]:
        """Queue an item and return at once. An item whose future is cancelled while queued is dropped.

        Raises RuntimeError: after `close`.
        """
        future: Future[R] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._queue.put(caller, (item, future))
            self._changed.notify()
        return future

    def __call__(self, item: T) -> R:
        """Queue an item and wait for its result."""
        return self.submit(item).result()

    def close(self) -> None:
        """Finish what is queued, then stop the threads. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                results = self._work([item for item, _ in batch])
                if len(results) != len(batch):
                    raise RuntimeError(f"{len(results)} results came back for {len(batch)} calls")
            except BaseException as error:  # every caller gets it, so that none waits for a result that never comes
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)

    def _next(self) -> list[tuple[T, Future[R]]]:
        """Wait for the next batch; empty when closed and nothing is left."""
        batch: list[tuple[T, Future[R]]] = []
        with self._changed:
            while not batch and not (self._closed and not self._queue):  # again where every queued call was cancelled
                while not self._queue and not self._closed:
                    self._changed.wait()
                deadline = time.monotonic() + self._max_wait
                while len(self._queue) < self._max_batch and not self._closed:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                while self._queue and len(batch) < self._max_batch:
                    item, future = self._queue.take()
                    if future.set_running_or_notify_cancel():
                        batch.append((item, future))
        return batch
