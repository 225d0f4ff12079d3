"""Ctrl-C ends every program with one line and exit code 130: in its imports, at work, and while it ends.

A program begins with

    if __name__ == "__main__":
        from mllm import ctrl_c

        ctrl_c.end_at_once()  # while the imports below run

and ends with `run_program(main)`. Imports take seconds, and libraries may swallow an exception there: a signal handler
ends the process. Inside `main`, Ctrl-C raises KeyboardInterrupt, so that the program can save its state.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from mllm.errors import STOPPED, ExitCode

T = TypeVar("T")


def end_at_once() -> None:
    """From now on, Ctrl-C ends this process. Where it is ignored, as in a job in the background, it stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def run(main: Callable[[], T]) -> T:
    """Call `main`, in which Ctrl-C raises KeyboardInterrupt. Later, Ctrl-C ends the process again if it did before.

    Raises SystemExit: `main` let the KeyboardInterrupt through. The line is printed, by one process of a launch.
    """
    ends_at_once = signal.getsignal(signal.SIGINT) is _end
    try:
        try:
            if ends_at_once:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            return main()
        finally:
            if ends_at_once:
                signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:
        if _speaks():
            sys.stderr.write(f"{STOPPED}\n")
        raise SystemExit(ExitCode.STOPPED) from None


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Start worker processes in this block: Ctrl-C does not reach them, and this process stops them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(number: int, frame: Any) -> None:
    """Print the line and end the process, whatever it is doing."""
    with suppress(Exception):  # the reader may be gone, and Ctrl-C may have come in the middle of a flush
        sys.stdout.flush()
    if _speaks():
        with suppress(OSError):
            os.write(2, f"{STOPPED}\n".encode())  # past the buffer of stderr, which may be in use
    os._exit(ExitCode.STOPPED)


def _speaks() -> bool:
    return os.environ.get("RANK", "0") == "0"
