"""Processes that train together: every one there at the start, and none lost on the way without its name being said.

A collective call waits for everybody. When a process is killed, stopped or stuck, the others wait in silence until the
back-end's own timeout, half an hour later, which does not say for whom. So each process tells the others, through the
launcher's own key-value store, that it lives and where it is; the first to miss one says which, and ends the run.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from torch.distributed import DistNetworkError, DistStoreError, TCPStore
from transformers import TrainerCallback

from mllm.distributed import World
from mllm.errors import FieldmarkError

logger = logging.getLogger(__name__)

CODE = 70
"""Exit code of a process that ended a run because another was lost (EX_SOFTWARE)."""
_BEATS = "fieldmark/beat/{}"
_OVER = "over"
# Where a process waits for the others: inside a collective, or in a backward pass, whose hooks make them.
_WAITING_FILES = ("/torch/distributed/", "/deepspeed/comm/")
_WAITING_FUNCTIONS = ("_engine_run_backward",)
_LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")


class LaunchError(FieldmarkError):
    """Processes that did not find each other. Every one that is there says so: the first may be the one missing."""


class Watch(threading.Thread):
    """Tells the other processes that this one lives, and ends this one when another is lost.

    Args:
        rank, size: this process, and how many there are.
        silence: seconds without a word from a process after which it is given up.
        every: seconds between words.

    `stall` is the time in which some process has to come further while one waits for the others; a little less than
    the collectives' own timeout, so that this message comes first.
    """

    def __init__(self, rank: int, size: int, silence: float, every: float = 2.0) -> None:
        super().__init__(name="fieldmark-watch", daemon=True)
        self.rank, self.size, self.silence, self.every = rank, size, silence, every
        self.stall = math.inf
        self.store = _connect(rank, max(silence, 30.0))
        self.ticks = self._count = 0
        self._main = threading.main_thread().ident
        self._finish = threading.Event()
        self._heard: dict[int, tuple[str, float]] = {}
        self._moved = (-1, time.monotonic())
        self._stack: tuple[Any, float] = ((), time.monotonic())
        self._tell()

    def roll_call(self, timeout: float) -> None:
        """Wait until every process is there.

        Raises:
            LaunchError: names those that have not come.
        """
        keys = [_BEATS.format(rank) for rank in range(self.size)]
        try:
            self.store.wait(keys, timedelta(seconds=timeout))
        except (DistStoreError, DistNetworkError) as error:
            missing = [str(rank) for rank, key in enumerate(keys) if not self.store.check([key])]
            self._finish.set()
            self.store.delete_key(keys[self.rank])  # who comes later must not wait for this one
            raise LaunchError(
                f"rank {', '.join(missing)} of {self.size} has not come after {timeout:g} s: is its machine up, and "
                f"was it started with the same address and port ({_address()})?"
            ) from error

    def run(self) -> None:
        """Tell and listen until the run is over."""
        while not self._finish.wait(self.every):
            try:
                self._tell()
                lost = self.lost()
            except (DistStoreError, DistNetworkError) as error:
                if not self._finish.is_set():
                    _leave(f"the launcher of rank 0 at {_address()} no longer answers ({error})")
                return
            if lost:
                self._end(lost)

    def lost(self) -> str | None:
        """Say which process is lost, None while all is well."""
        now, told = time.monotonic(), []
        for rank in range(self.size):
            text = self.store.get(_BEATS.format(rank)).decode()
            if rank not in self._heard or self._heard[rank][0] != text:
                self._heard[rank] = (text, now)
            told.append({"rank": rank, **json.loads(text), "age": now - self._heard[rank][1]})
        silent = [one for one in told if one["age"] > self.silence and not one[_OVER]]
        if silent:
            return "; ".join(
                f"{_name(one)} has not been heard of for {one['age']:.0f} s, last in {one['place']}" for one in silent
            )
        ticks = sum(one["ticks"] for one in told)
        if ticks != self._moved[0]:
            self._moved = (ticks, now)
        # In one place all the while: a process that writes an answer waits at every token, and moves.
        waiting = [one for one in told if one["waiting"] and one["still"] > self.stall and not one[_OVER]]
        if not waiting or now - self._moved[1] <= self.stall:
            return None
        busy = [one for one in told if not one["waiting"] and not one[_OVER]] or told
        where = "; ".join(f"{_name(one)} is in {one['place']}" for one in busy)
        return f"nothing has moved for {now - self._moved[1]:.0f} s: {where}; {len(waiting)} of {self.size} wait"

    def stop(self) -> None:
        """Say that this process is done, so that nobody misses it."""
        if self._finish.is_set():
            return
        self._finish.set()
        try:
            self._tell(over=True)
        except (DistStoreError, DistNetworkError):
            return  # the launcher went first: there is nobody left to tell

    def _tell(self, over: bool = False) -> None:
        self._count += 1
        frame = sys._current_frames().get(self._main or 0)
        place, waiting = _place(frame)
        now, stack = time.monotonic(), _stack(frame)
        if stack != self._stack[0]:
            self._stack = (stack, now)
        beat = {"count": self._count, "ticks": self.ticks, "place": place, "waiting": waiting, _OVER: over}
        beat |= {"still": now - self._stack[1], "host": socket.gethostname(), "pid": os.getpid()}
        self.store.set(_BEATS.format(self.rank), json.dumps(beat))

    def _end(self, lost: str) -> NoReturn:
        """Leave; the first process that lives says why."""
        now = time.monotonic()
        alive = [rank for rank, (_, heard) in self._heard.items() if now - heard <= self.silence]
        if alive and self.rank != min(alive):
            time.sleep(self.every)
            os._exit(CODE)
        _leave(lost)


class Pulse(TrainerCallback):
    """Tells the watch that training moves."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the beginning of a step."""
        self.watch.ticks += 1

    on_substep_end = on_step_end = on_log = on_save = on_step_begin


_watch: Watch | None = None


def begin(silence: float) -> Watch | None:
    """Meet the other processes and watch over them from now on; None where this is the only one.

    Raises:
        LaunchError: some have not come within `silence` seconds, or rank 0 cannot be reached.
    """
    global _watch
    world = World.current()
    rank, size = world.rank, world.size
    if size > 1 and _watch is None:
        _watch = Watch(rank, size, silence)
        _watch.roll_call(silence)
        _watch.start()
    return _watch


def watching() -> Watch | None:
    """Return this process's watch, None where it trains alone."""
    return _watch


def end() -> None:
    """Leave the others in peace."""
    global _watch
    if _watch is not None:
        _watch.stop()
        _watch = None


def is_about_another(error: BaseException) -> bool:
    """Whether an error comes from a connection to another process, and so is not this one's fault."""
    return (
        World.current().size > 1 and isinstance(error, RuntimeError) and any(one in str(error).lower() for one in _LOST)
    )


def _connect(rank: int, timeout: float) -> TCPStore:
    """Open the launcher's store; where the launcher keeps none (no torchrun), the first process does."""
    host, port = _address().rsplit(":", 1)
    keeps = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        return TCPStore(
            host, int(port), None, keeps, timedelta(seconds=timeout), wait_for_workers=False, multi_tenant=True
        )
    except (DistStoreError, DistNetworkError) as error:
        raise LaunchError(
            f"rank 0 cannot be reached at {host}:{port} after {timeout:g} s: check the address and port that the "
            f"launcher was given, and firewalls between the machines ({error})"
        ) from error


def _address() -> str:
    return f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '29500')}"


def _name(one: dict[str, Any]) -> str:
    return f"rank {one['rank']} ({one['host']}, process {one['pid']})"


def _place(frame: FrameType | None) -> tuple[str, bool]:
    """Say where a thread is, and whether it waits there for other processes."""
    place, waiting = "no Python code", False
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if place == "no Python code":
            place = f"{Path(file).name}:{frame.f_lineno} {name}"
        waiting = waiting or any(part in file for part in _WAITING_FILES) or name in _WAITING_FUNCTIONS
        frame = frame.f_back
    return place, waiting


def _stack(frame: FrameType | None) -> tuple[tuple[int, int], ...]:
    """Name where a thread is in every function that it is in, down to the instruction."""
    found = []
    while frame is not None:
        found.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def _leave(reason: str) -> NoReturn:
    """End this process now: its main thread waits in a call that no exception reaches."""
    world = World.current()
    rank, size = world.rank, world.size
    logger.critical(
        "error: %s. Rank %d of %d ends the run; the same command goes on from the last checkpoint", reason, rank, size
    )
    os._exit(CODE)
