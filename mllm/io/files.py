"""Files that are never half written: the old one stays until the new one is whole."""

from __future__ import annotations

import glob
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_HOST = socket.gethostname() or "host"


def is_file(path: Path) -> bool:
    """Whether a path is a file; one that no file can have (too long, with a zero byte) is none."""
    return os.path.isfile(path)  # pathlib's own raises


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[str]]:
    """Open a text file that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    The new file is written beside the old one, flushed to the disk (fsync) and renamed over it, which POSIX does in one
    step; so a crash at any moment leaves the old file or the new one, whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # a keyboard interrupt leaves no litter either
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, data: Any) -> None:
    """Write a JSON file in one step, as `atomic_write` does."""
    with atomic_write(path) as file:
        json.dump(data, file, ensure_ascii=False, indent=1)


def _sweep(path: Path) -> None:
    """Remove the half-written files that a killed process of this machine left beside `path`."""
    for litter in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(_HOST)}-*.tmp"):
        process = litter.name.removesuffix(".tmp").rpartition("-")[2]
        if process.isdigit() and not _is_alive(int(process)):
            litter.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether a process of this machine still runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs, and is somebody else's
    return True
