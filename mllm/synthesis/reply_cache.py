"""Teacher replies cached on disk, so that no request is paid for twice, even after a stop or by two threads at once."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write

CachedReply = dict[str, Any]
# Per process, not per cache: two teachers with one folder must not send the same request either.
_pending: dict[Path, Future[CachedReply]] = {}
_lock = threading.Lock()


class ReplyCache:
    """A folder with one file per reply, named by the hash of the whole request; several processes may share it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    def path(self, request: Mapping[str, Any]) -> Path:
        """Return the file of a request's reply. Requests are equal if their JSON with sorted keys is equal."""
        text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        name = hashlib.sha256(text.encode()).hexdigest()
        return (self.folder / name[:2] / f"{name}.json").absolute()

    def get(self, request: Mapping[str, Any], make: Callable[[], CachedReply]) -> tuple[CachedReply, bool]:
        """Return the reply to a request, and whether it was cached; otherwise `make` it and cache it.

        If several threads want the same reply, one makes it and the others wait. An exception of `make` is raised in
        all of them, and nothing is cached.
        """
        path = self.path(request)
        mine: Future[CachedReply] = Future()
        with _lock:
            pending = _pending.setdefault(path, mine)
        if pending is not mine:
            return pending.result(), True
        try:
            known = _read(path)
            reply = make() if known is None else known
            if known is None:
                with atomic_write(path) as file:  # with its request, so that people can read the folder
                    json.dump({"request": request, "reply": reply}, file, ensure_ascii=False, indent=1)
                    file.write("\n")
            mine.set_result(reply)
            return reply, known is not None
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with _lock:
                del _pending[path]


def _read(path: Path) -> CachedReply | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["reply"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FieldmarkError(f"{path}: this cached reply is damaged ({error}); delete the file to ask again") from None
