"""Pickles of published predictions, read without running anything: containers, texts and numbers, nothing else.

A pickle is a program that may name any function of any module. The published predictions of TrueMatch are pickles of
`{COCO id: caption}`, which needs no name at all; a file that has one is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from mllm.errors import FieldmarkError

LIMIT = 64 * 2**20
"""Largest file that is read, in bytes."""
_RUNS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD", "EXT1", "EXT2", "EXT4")
"""Instructions that name or call something."""
_KEEPS = ("PUT", "BINPUT", "LONG_BINPUT")
"""Instructions that keep a value under a number; Python makes room for all numbers below it."""
_PLAIN = (str, int, float, bool, bytes, type(None))


class PickleError(FieldmarkError):
    """A pickle that is broken, too large, or wants more than plain values."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse every name."""
        raise PickleError(f"it names {module}.{name}, which reading it would run")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse references to things outside."""
        raise PickleError("it refers to something outside of the file")


def load(path: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, texts, numbers and None.

    Raises:
        PickleError: no such file, larger than `LIMIT`, broken, or anything that is not plain; names the file.
    """
    if not path.is_file():
        raise PickleError(f"{path}: no such file")
    if path.stat().st_size > LIMIT:
        raise PickleError(f"{path}: {path.stat().st_size} bytes; the limit is {LIMIT}")
    with path.open("rb") as file:
        return read(file, str(path))


def read(file: IO[bytes], name: str) -> Any:
    """Read an open pickle, as `load` does; `name` stands in messages."""
    try:
        data = file.read()
        for code, argument, _ in pickletools.genops(data):
            if code.name in _RUNS:
                raise PickleError(f"it has the instruction {code.name} ({argument!r:.60})")
            if code.name in _KEEPS and not (isinstance(argument, int) and 0 <= argument <= len(data)):
                raise PickleError(f"it keeps a value under the number {argument}")
        value = _Unpickler(io.BytesIO(data)).load()
        for item in _walk(value):
            if type(item) not in _PLAIN:
                raise PickleError(f"it holds a {type(item).__name__}")
    except PickleError as error:
        raise PickleError(f"{name}: not a pickle of plain values: {error}. Ask for json instead") from None
    # What the unpickler raises on broken or hostile bytes; a size that is claimed and not there ends in one of these.
    except (
        pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError,
        MemoryError, RecursionError, ImportError,
    ) as error:  # fmt: skip
        raise PickleError(f"{name}: a broken pickle: {type(error).__name__}: {error}") from None
    return value


def _walk(value: Any) -> Iterator[Any]:
    """Yield what is in a value but its containers, each container once (pickles may hold a thing many times)."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if type(item) in (dict, list, tuple, set, frozenset):
            if id(item) not in seen:
                seen.add(id(item))
                waiting += [*item.keys(), *item.values()] if type(item) is dict else item
        else:
            yield item
