"""Read pickles without running code from them: only containers, texts and numbers are accepted.

For the published predictions of TrueMatch, `{COCO id: caption}`. A file that names a function is refused.
"""

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from mllm.errors import FieldmarkError

UnpicklingError = pickle.UnpicklingError
"""What `torch.load` raises where it reads weights only and a file holds more."""
LIMIT = 64 * 2**20
"""Largest accepted file, in bytes."""
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD", "EXT1", "EXT2", "EXT4")
"""Opcodes that name or call something."""
_STORES = ("PUT", "BINPUT", "LONG_BINPUT")
"""Opcodes that store a value in a numbered slot; Python allocates all slots below that number."""
_PLAIN = (str, int, float, bool, bytes, type(None))
# What the unpickler raises for broken or hostile bytes.
_BROKEN = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError),
    *(AttributeError, OverflowError, MemoryError, RecursionError, ImportError),
)


class PickleError(FieldmarkError):
    """A pickle that is broken, too large, or contains more than plain values."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse every name."""
        raise PickleError(f"it names {module}.{name}")


def load(path: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, texts, numbers and None.

    Raises PickleError: no such file, larger than `LIMIT`, broken, or not plain values. Names the file.
    """
    if not path.is_file():
        raise PickleError(f"{path}: no such file")
    if path.stat().st_size > LIMIT:
        raise PickleError(f"{path}: {path.stat().st_size} bytes; the limit is {LIMIT}")
    with path.open("rb") as file:
        return read(file, str(path))


def read(file: IO[bytes], name: str) -> Any:
    """Read an open pickle, as `load` does; `name` is used in error messages."""
    try:
        data = file.read()
        for code, argument, _ in pickletools.genops(data):
            if code.name in _CALLS:
                raise PickleError(f"it contains the opcode {code.name} ({argument!r:.60})")
            if code.name in _STORES and not (isinstance(argument, int) and 0 <= argument <= len(data)):
                raise PickleError(f"it stores a value in slot {argument}")
        value = _Unpickler(io.BytesIO(data)).load()
        for item in _walk(value):
            if type(item) not in _PLAIN:
                raise PickleError(f"it contains a {type(item).__name__}")
    except PickleError as error:
        raise PickleError(f"{name}: not a pickle of plain values: {error}. Ask its authors for JSON") from None
    except _BROKEN as error:
        raise PickleError(f"{name}: a broken pickle: {type(error).__name__}: {error}") from None
    return value


def _walk(value: Any) -> Iterator[Any]:
    """Yield the items of nested containers, each container once (a pickle may refer to one many times)."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if type(item) in (dict, list, tuple, set, frozenset):
            if id(item) not in seen:
                seen.add(id(item))
                waiting += [*item.keys(), *item.values()] if type(item) is dict else item
        else:
            yield item
