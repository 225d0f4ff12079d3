"""Vectors of images, kept on disk and mapped into memory: made once for each image and model, shared by processes.

A store is a folder `<cache>/<model key>/` with `keys.txt`, one line an image (the hash of its file's bytes), and
`vectors.f32`, one row of float32 for each line. Rows are appended under a lock, vectors first, so that a line stands
for a whole row: what a killed process left behind is cut off by the next one that writes.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from mllm.errors import ImageError
from mllm.io.provenance import file_hash

_LINE = 33
"""Bytes of a line of keys.txt: 32 hexadecimal digits and its end."""


def content_key(file: Path) -> str:
    """Hash of a file's bytes; read again only when the file has changed.

    Raises:
        ImageError: no such file.
    """
    try:
        state = file.stat()
    except OSError as error:
        raise ImageError(f"{file}: no such image file ({error.strerror})") from None
    return _cached_key(str(file), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1_000_000)
def _cached_key(file: str, size: int, changed: int) -> str:
    return file_hash(file)[: _LINE - 1]


class EmbeddingStore:
    """The vectors of one model; `shape` is that of one image's, for instance (1, 512).

    With `folder` None they are kept in memory and go with the process.
    """

    def __init__(self, folder: Path | None, shape: tuple[int, ...]) -> None:
        self.folder, self.shape = folder, shape
        self._row_of: dict[str, int] = {}
        self._rows = np.empty((0, *shape), np.float32)
        self._bytes = 4 * int(np.prod(shape))
        self._turn = threading.Lock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._look()

    def __len__(self) -> int:
        return len(self._row_of)

    def vectors(self, files: Sequence[Path], embed: Callable[[Sequence[Path]], np.ndarray]) -> np.ndarray:
        """Return one vector for each file, (len(files), *shape); `embed` makes those that are not there yet."""
        with self._turn:
            return self._vectors(files, embed)

    def _vectors(self, files: Sequence[Path], embed: Callable[[Sequence[Path]], np.ndarray]) -> np.ndarray:
        """Do the work of `vectors`, one thread at a time."""
        keys = [content_key(file) for file in files]
        if any(key not in self._row_of for key in keys) and self.folder is not None:
            self._look()  # another process may have made them meanwhile
        missing = {key: file for key, file in zip(keys, files, strict=True) if key not in self._row_of}
        if missing:
            made = np.ascontiguousarray(embed(list(missing.values())), dtype=np.float32)
            self._add(list(missing), made)
        if not keys:
            return np.empty((0, *self.shape), np.float32)
        return np.asarray(self._rows[[self._row_of[key] for key in keys]])

    def _add(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Append rows; an image that another process added in the meantime may stand there twice."""
        if rows.shape != (len(keys), *self.shape):
            raise ValueError(f"{len(keys)} vectors of shape {self.shape} were promised, got {rows.shape}")
        if self.folder is None:
            self._row_of |= {key: len(self._rows) + place for place, key in enumerate(keys)}
            self._rows = np.concatenate([self._rows, rows])
            return
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            whole = self._count()
            for name, size, data in (
                ("vectors.f32", self._bytes, rows.tobytes()),
                ("keys.txt", _LINE, "".join(f"{key}\n" for key in keys).encode()),
            ):
                with (self.folder / name).open("ab") as file:
                    file.truncate(whole * size)  # what a killed process left half done
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        self._look()

    def _count(self) -> int:
        """How many whole rows lie on the disk."""
        assert self.folder is not None
        files = ((self.folder / "keys.txt", _LINE), (self.folder / "vectors.f32", self._bytes))
        return min(file.stat().st_size // size if file.exists() else 0 for file, size in files)

    def _look(self) -> None:
        """Map what lies on the disk now."""
        assert self.folder is not None
        count, known = self._count(), len(self._rows)
        if count <= known:
            return
        with (self.folder / "keys.txt").open("rb") as file:  # the new lines alone: a store grows in many small steps
            file.seek(known * _LINE)
            lines = file.read((count - known) * _LINE).decode().split()
        for row, key in enumerate(lines, known):
            self._row_of[key] = row
        self._rows = np.memmap(self.folder / "vectors.f32", np.float32, mode="r", shape=(count, *self.shape))
