"""Dynamic batching: calls of several threads are answered in batches, which cost little more than a single call."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """A queue in front of a function that works on batches.

    Args:
        work: takes 1 to `max_batch` items and returns as many results, in order. All its callers get its exception.
        max_batch: items in a batch, at most.
        max_wait: seconds that the first item of a batch waits for others; 0 takes what is queued.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], *, max_batch: int, max_wait: float = 0.01) -> None:
        self._work, self._max_batch, self._max_wait = work, max_batch, max_wait
        self._queue: deque[tuple[T, Future[R]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, item: T) -> Future[R]:
        """Queue an item and return at once. An item whose future is cancelled while queued is dropped.

        Raises RuntimeError: after `close`.
        """
        future: Future[R] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._queue.append((item, future))
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
            except BaseException as error:  # every caller gets it, so that none waits for a result that never comes
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)

    def _next(self) -> list[tuple[T, Future[R]]]:
        """Wait for the next batch; empty when closed and nothing is left."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            deadline = time.monotonic() + self._max_wait
            while len(self._queue) < self._max_batch and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch: list[tuple[T, Future[R]]] = []
            while self._queue and len(batch) < self._max_batch:
                item, future = self._queue.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((item, future))
            if batch or self._closed:
                return batch
        return self._next()  # every queued call was cancelled
