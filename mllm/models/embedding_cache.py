"""Image embeddings on disk, memory-mapped: computed once per image and model, shared by processes.

A store `<cache>/<model key>/` has `keys.txt`, a line per image (hash of its bytes), and `vectors.f32`, a row per line.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from mllm.errors import FieldmarkError, ImageError
from mllm.io import strict_json
from mllm.io.files import naming_full_disk, write_json
from mllm.io.provenance import file_hash

_LINE = 33
"""Bytes of a line of keys.txt: 32 hexadecimal digits and a newline."""


def content_key(file: Path) -> str:
    """Hash a file's bytes; the file is read again only when it has changed. Raises ImageError: no such file."""
    try:
        state = file.stat()
    except OSError as error:
        raise ImageError(f"{file}: no such image file ({error.strerror})") from None
    return _cached_key(str(file), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1_000_000)
def _cached_key(file: str, size: int, changed: int) -> str:
    return file_hash(file)[: _LINE - 1]


class EmbeddingStore:
    """The vectors of one model; `shape` is that of one image, for instance (1, 512).

    With `folder` None they are kept in memory only.
    """

    def __init__(self, folder: Path | None, shape: tuple[int, ...]) -> None:
        self.folder, self.shape = folder, shape
        self._row_of: dict[str, int] = {}
        self._rows = np.empty((0, *shape), np.float32)
        self._bytes = 4 * int(np.prod(shape))
        self._lock = threading.Lock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._check_shape(folder / "shape.json")
            self._refresh()

    def __len__(self) -> int:
        return len(self._row_of)

    def vectors(self, files: Sequence[Path], embed: Callable[[Sequence[Path]], np.ndarray]) -> np.ndarray:
        """Return one vector per file, (len(files), *shape); `embed` computes those that are not in the store."""
        with self._lock:
            keys = [content_key(file) for file in files]
            if any(key not in self._row_of for key in keys) and self.folder is not None:
                self._refresh()  # another process may have added them
            missing = {key: file for key, file in zip(keys, files, strict=True) if key not in self._row_of}
            if missing:
                rows = np.ascontiguousarray(embed(list(missing.values())), dtype=np.float32)
                if rows.shape == (len(missing), *self.shape):  # `_add` refuses others
                    self._check(rows, list(missing.values()), "as the encoder gave it; are its weights whole?")
                self._add(list(missing), rows)
            found = np.asarray(self._rows[np.array([self._row_of[key] for key in keys], dtype=np.int64)])
        self._check(found, files, f"in {self.folder}; delete this folder to embed its images again")
        return found

    def _check_shape(self, file: Path) -> None:
        """Refuse a folder of vectors of another shape; a new one records its shape."""
        if not file.is_file():
            write_json(file, self.shape)
        known = strict_json.read(file, list[int], advice="delete its folder")
        if tuple(known) != self.shape:
            raise FieldmarkError(
                f"{file}: vectors of shape {known}, but this model makes {list(self.shape)}; delete its folder"
            )

    def _check(self, rows: np.ndarray, files: Sequence[Path], where: str) -> None:
        """Refuse vectors that compare with nothing: with a number that is not finite, or all zeros."""
        flat = rows.reshape(len(rows), int(np.prod(self.shape)))
        good = np.isfinite(flat).all(axis=1) & flat.any(axis=1)
        if not good.all():
            raise FieldmarkError(f"{files[int(np.argmin(good))]}: its vector is not finite or all zeros, {where}")

    def _add(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Append rows. An image that another process added in the meantime is stored twice."""
        if rows.shape != (len(keys), *self.shape):
            raise ValueError(f"expected {len(keys)} vectors of shape {self.shape}, got {rows.shape}")
        if self.folder is None:
            self._row_of |= {key: row for row, key in enumerate(keys, len(self._rows))}
            self._rows = np.concatenate([self._rows, rows])
            return
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            complete = self._count()
            for name, size, data in (
                ("vectors.f32", self._bytes, rows.tobytes()),
                ("keys.txt", _LINE, "".join(f"{key}\n" for key in keys).encode()),
            ):
                with naming_full_disk(self.folder / name), (self.folder / name).open("ab") as file:
                    file.truncate(complete * size)  # remove an incomplete row of a killed process
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        self._refresh()

    def _count(self) -> int:
        assert self.folder is not None
        files = ((self.folder / "keys.txt", _LINE), (self.folder / "vectors.f32", self._bytes))
        return min(file.stat().st_size // size if file.exists() else 0 for file, size in files)

    def _refresh(self) -> None:
        assert self.folder is not None
        count, known = self._count(), len(self._rows)
        if count <= known:
            return
        with (self.folder / "keys.txt").open("rb") as file:  # only the new lines: a store grows in many small steps
            file.seek(known * _LINE)
            lines = file.read((count - known) * _LINE).decode().split()
        self._row_of |= {key: row for row, key in enumerate(lines, known)}
        self._rows = np.memmap(self.folder / "vectors.f32", np.float32, mode="r", shape=(count, *self.shape))
