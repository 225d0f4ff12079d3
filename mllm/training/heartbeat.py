"""Heartbeats of processes that train together: a rank that is lost or hangs is named, and the others end.

Without them the others would wait in a collective call for half an hour, and its timeout does not name the rank.
"""

import json
import logging
import math
import os
import socket
import sys
import threading
import time
from datetime import timedelta

from torch.distributed import DistNetworkError, DistStoreError, TCPStore

from mllm.distributed import World
from mllm.errors import FieldmarkError

logger = logging.getLogger(__name__)

EXIT_CODE = 70  # EX_SOFTWARE
_DONE = "done"
_COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/", "_engine_run_backward")  # backward hooks call collectives
_STORE_ERRORS = (DistStoreError, DistNetworkError)
_LOST_CONNECTION = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")


class LaunchError(FieldmarkError):
    """Ranks that did not find each other. Every rank prints it, because the first one may be missing."""


class Heartbeat(threading.Thread):
    """Writes this rank's heartbeat, and ends the process when another rank is silent or hangs.

    A rank counts as lost after `silence` seconds without a heartbeat. Ranks hang if another one waits for them in one
    collective call for `stall` seconds; a little less than the call's own timeout lets this error come first.
    """

    def __init__(self, world: World, silence: float, every: float = 2.0) -> None:
        super().__init__(name="fieldmark-heartbeat", daemon=True)
        self.world, self.silence, self.every, self.stall = world, silence, every, math.inf
        self.store = _connect(world.rank, max(silence, 30.0))
        self.keys = [f"fieldmark/beat/{rank}" for rank in range(world.size)]
        self._finish = threading.Event()
        self._count, self._place = 0, ("", time.monotonic())
        self._seen = {rank: ("", time.monotonic()) for rank in range(world.size)}  # latest beat, and when it came
        self._beat()

    def roll_call(self, timeout: float) -> None:
        """Wait until every rank has joined; raises `LaunchError`, which names the missing ranks."""
        try:
            self.store.wait(self.keys, timedelta(seconds=timeout))
        except _STORE_ERRORS as error:
            missing = [str(rank) for rank, key in enumerate(self.keys) if not self.store.check([key])]
            self._finish.set()
            self.store.delete_key(self.keys[self.world.rank])  # a rank that comes late must not count on this one
            raise LaunchError(
                f"rank {', '.join(missing)} of {self.world.size} did not join within {timeout:g} s; is its node up, "
                f"and was it started with the same address and port ({_address()})?"
            ) from error

    def run(self) -> None:
        """Write and read heartbeats until `stop`."""
        while not self._finish.wait(self.every):
            try:
                self._beat()
                problem = self._problem()
            except _STORE_ERRORS as error:
                problem = f"the launcher of rank 0 at {_address()} does not answer ({error})"
            if problem and not self._finish.is_set():
                rank, size = self.world.rank, self.world.size
                alive = [other for other, (_, seen) in self._seen.items() if time.monotonic() - seen <= self.silence]
                if rank == min(alive, default=rank):
                    advice = "the same command continues from the last checkpoint"
                    logger.critical("error: %s. Rank %d of %d ends the run; %s", problem, rank, size, advice)
                else:
                    time.sleep(self.every)  # the first rank that is alive reports the problem
                os._exit(EXIT_CODE)  # the main thread waits in a call that no exception reaches

    def stop(self) -> None:
        """Mark this rank as done, so that its silence is not an error."""
        if not self._finish.is_set():
            self._finish.set()
            try:
                self.store.set(self.keys[self.world.rank], _DONE)
            except _STORE_ERRORS:
                return  # the launcher ended first, and no rank reads heartbeats any more

    def _beat(self) -> None:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        place = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}" if frame else "no Python code"
        if place != self._place[0]:
            self._place = (place, time.monotonic())
        self._count += 1
        beat = {"host": socket.gethostname(), "pid": os.getpid(), "count": self._count, "place": place}
        beat["seconds"] = time.monotonic() - self._place[1]  # at this place
        self.store.set(self.keys[self.world.rank], json.dumps(beat))

    def _problem(self) -> str | None:
        """Name the ranks that are silent or hang, None if there are none."""
        silent, waiting, others, stalled = [], 0, [], 0.0
        for rank, key in enumerate(self.keys):
            text, now = self.store.get(key).decode(), time.monotonic()
            if text == _DONE:
                continue
            if text != self._seen[rank][0]:
                self._seen[rank] = (text, now)
            beat = json.loads(text)
            name = f"rank {rank} ({beat['host']}, process {beat['pid']}) in {beat['place'].rsplit('/', 1)[-1]}"
            if now - self._seen[rank][1] > self.silence:
                silent.append(f"no heartbeat for {now - self._seen[rank][1]:.0f} s from {name}")
            elif any(part in beat["place"] for part in _COLLECTIVES):
                waiting, stalled = waiting + 1, max(stalled, beat["seconds"])
            else:
                others.append(name)
        if silent or stalled <= self.stall:
            return "; ".join(silent) or None
        ranks = "; ".join(others) or "all ranks"
        return f"no progress for {stalled:.0f} s: {waiting} of {self.world.size} ranks wait in a collective for {ranks}"


_current: Heartbeat | None = None


def begin(silence: float) -> Heartbeat | None:
    """Wait for the other ranks and start this rank's heartbeat; None if there is one process only.

    Raises:
        LaunchError: a rank did not join within `silence` seconds, or rank 0 cannot be reached.
    """
    global _current
    world = World.current()
    if world.size > 1 and _current is None:
        _current = Heartbeat(world, silence)
        _current.roll_call(silence)
        _current.start()
    return _current


def end() -> None:
    """Stop this process's heartbeat, if it has one."""
    global _current
    if _current is not None:
        _current.stop()
        _current = None


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error comes from a connection to another process, and so is not this process's fault."""
    text = str(error).lower()
    return World.current().size > 1 and isinstance(error, RuntimeError) and any(w in text for w in _LOST_CONNECTION)


def _connect(rank: int, timeout: float) -> TCPStore:
    """Open the launcher's store; without torchrun's store, rank 0 serves one."""
    host, port = _address().rsplit(":", 1)
    serves, wait = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True", timedelta(seconds=timeout)
    try:
        return TCPStore(host, int(port), None, serves, wait, wait_for_workers=False, multi_tenant=True)
    except _STORE_ERRORS as error:
        raise LaunchError(
            f"rank 0 cannot be reached at {host}:{port} after {timeout:g} s: check the launcher's address and port, "
            f"and firewalls between the nodes ({error})"
        ) from error


def _address() -> str:
    return f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '29500')}"
