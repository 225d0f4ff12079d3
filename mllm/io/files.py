"""Atomic writes, the program folders, and other small operations on files."""

import errno
import fcntl
import glob
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mllm.errors import FieldmarkError

PACKAGE = Path(__file__).parents[1]
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors that say that no more can be written: no space, a quota, a limit on the size of files."""
_TORCH_WRITES = re.compile("inline_container|iostream|PytorchStreamWriter")
"""What torch.save says if it cannot write; it does not say why."""
_HOST = socket.gethostname() or "host"


def is_file(path: Path) -> bool:
    """Whether a path is a file; False for a path that no file can have (too long, or with a zero byte)."""
    return os.path.isfile(path)  # pathlib's own raises for such paths


def no_such(path: str | Path, kind: str) -> str:
    """Return the sentence for a path that is not the `kind` needed there, "file of cards" or "folder"."""
    if os.path.isdir(path):  # pathlib's own raises for a name that is too long for a path
        return f"{path}: this is a folder, but a {kind} is needed; name one in it"
    if os.path.exists(path):
        return f"{path}: this is a file, but a {kind} is needed"
    return f"{path}: no such {kind}"


def read_text(file: Path, kind: type[FieldmarkError] = FieldmarkError) -> str:
    """Return the content of a text file. Raises `kind`: an encoding other than UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(f"{file}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None


def program_folder(name: str) -> Path:
    """Return the folder `recipes`, `data_synth` or `eval`: inside the installed package, beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


@contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Add the file or folder being written to an `OSError` of a full disk that names none (see `disk_full`).

    Libraries that write by themselves (safetensors, tokenizers, torch) report it as an error of their own, which
    becomes such an `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL and error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:
        found = re.search(r"(?:os error|errno) (\d+)", str(error))  # so do libraries in Rust, and torch
        if found and int(found[1]) in DISK_FULL:
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        if isinstance(error, RuntimeError) and _TORCH_WRITES.search(str(error)):
            raise OSError(errno.ENOSPC, str(error).splitlines()[0], str(path)) from error
        raise


def disk_full(error: OSError) -> str:
    """Return the line for an error in `DISK_FULL`: the file, its disk, and the way out."""
    end = f"({error.strerror}). Make room, or name a folder on another disk; the same command continues"
    file = error.filename2 or error.filename  # of a copy, the first is its source
    if file is None:
        return f"disk full {end}"
    disk = Path(file).absolute()
    while not disk.is_mount() and disk != disk.parent:
        disk = disk.parent
    return f"disk full: {file}, on the disk at {disk} {end}"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[str]]:
    """Open a text file that replaces `path` when the block ends, and is removed when the block raises.

    The new file is written beside the old one, flushed to disk (fsync) and renamed over it, which is atomic on POSIX.
    A crash at any moment leaves either the old file or the new one, complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.tmp")
    try:
        with naming_full_disk(path), temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # including KeyboardInterrupt
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder whose files are moved to `folder` when the block ends; it is removed when the block raises."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with naming_full_disk(folder):
            fresh.mkdir(parents=True)
            yield fresh
        if not folder.exists():
            fresh.rename(folder)
            return
        for file in sorted(fresh.iterdir()):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder if need be, and hold it while the block runs, so that no other run writes into it.

    The end of the process gives it back, too. Raises FieldmarkError: another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FieldmarkError(f"{folder}: another run is using this folder; wait for it or stop it") from None
        yield
    finally:
        os.close(opened)


def is_leftover(path: Path) -> bool:
    """Whether a file is what a killed `atomic_write` or `write_bytes` left behind."""
    return path.name.startswith(".") and path.suffix in (".tmp", ".part")


def remove(path: Path) -> None:
    """Remove a file, a folder with all it holds, or a link; what a link points to stays."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def write_json(path: str | Path, data: Any) -> None:
    """Write a JSON file in one step, as `atomic_write` does."""
    with atomic_write(path) as file:
        json.dump(data, file, ensure_ascii=False, indent=1)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file in one step: it is written under another name and then renamed."""
    part = path.with_name(f".{path.name}.part")
    try:
        with naming_full_disk(path):
            part.write_bytes(data)
        part.replace(path)
    except BaseException:  # including KeyboardInterrupt
        part.unlink(missing_ok=True)
        raise


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes of this machine left beside `path`."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(_HOST)}-*.tmp"):
        process = leftover.name.removesuffix(".tmp").rpartition("-")[2]
        if process.isdigit() and not _is_alive(int(process)):
            leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs as another user
    return True
