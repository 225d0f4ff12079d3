"""Replies kept on the disk, so that nothing is paid for twice: not after a stop, not by two threads at once.

One file a reply, named by the hash of the whole request; it appears whole or not at all. Several processes may use one
folder.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write

Reply = dict[str, Any]
"""What is kept: plain json values."""

# Of the whole process, not of one shelf: two teachers on one folder must not ask the same thing either.
_flights: dict[Path, Future[Reply]] = {}
_lock = threading.Lock()


class Shelf:
    """A folder of replies by request."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    def path(self, request: Mapping[str, Any]) -> Path:
        """Return where the reply to a request lies. Requests are equal when their json, keys sorted, is."""
        text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        name = hashlib.sha256(text.encode()).hexdigest()
        return (self.folder / name[:2] / f"{name}.json").absolute()

    def get(self, request: Mapping[str, Any], make: Callable[[], Reply]) -> tuple[Reply, bool]:
        """Return the reply to a request and whether it was there already; else `make` it, and keep it.

        Of threads that want the same at the same time one makes it and the others wait; what `make` raises, all of
        them get, and nothing is kept.
        """
        path = self.path(request)
        with _lock:
            flight = _flights.get(path)
            mine = flight is None
            if flight is None:
                flight = _flights[path] = Future()
        if not mine:
            return flight.result(), True
        try:
            known = _read(path)
            reply = make() if known is None else known
            if known is None:
                _write(path, request, reply)
            flight.set_result(reply)
            return reply, known is not None
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with _lock:
                del _flights[path]


def _read(path: Path) -> Reply | None:
    """Return a kept reply, None where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return dict(json.loads(text)["reply"])
    except (ValueError, KeyError, TypeError) as error:
        raise FieldmarkError(f"{path}: this kept reply was damaged ({error}); delete the file to ask again") from None


def _write(path: Path, request: Mapping[str, Any], reply: Reply) -> None:
    """Keep a reply beside its request, for people who look into the folder."""
    with atomic_write(path) as file:
        json.dump({"request": request, "reply": reply}, file, ensure_ascii=False, indent=1)
        file.write("\n")
