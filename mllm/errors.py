"""The errors a user can meet: every one says where it happened and the way out.

Bad *model text* is never an error (it is data, scored 0). A bad file, setting or program is: these classes carry it.
All of them are `ValueError`s, so that a caller who does not know Fieldmark can still catch them.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum

STOPPED = "stopped; the same command continues"
"""What every program prints after Ctrl-C."""


class ExitCode(IntEnum):
    """Exit codes of every program."""

    DONE = 0
    FAILED = 1
    """The run failed, or a command that checks something found a fault."""
    USAGE = 2
    """Bad usage or bad input: what a `FieldmarkError` says."""
    STOPPED = 130
    """Stopped by Ctrl-C."""


class FieldmarkError(ValueError):
    """Something that a person can put right: a file, a name, a setting. The message says how."""


class BoxError(FieldmarkError):
    """Numbers that are no box: not finite, inverted, empty, or outside the frame they were said to be written on."""


class RecordError(FieldmarkError):
    """A row of a record file that cannot be read. The message starts with `file:line` and names the field."""


class ImageError(FieldmarkError):
    """A file that cannot be opened as an image: missing, truncated, not an image, or too large."""


class FamilyError(FieldmarkError):
    """A model family that is unknown, or a checkpoint that does not say which conventions it was trained with."""


class ConfigError(FieldmarkError):
    """A setting that does not exist or has an impossible value."""


class UnknownNameError(FieldmarkError):
    """A name (of a reward, a domain, a family ...) that no file stands for. The message lists the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """State that `name` is no known `kind`; `known` are the names that would have worked."""
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        close = get_close_matches(name, self.known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(self.known) or 'none'}.")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...]]]:
        """Pickle by the three arguments (the default would call us with the message alone)."""
        return type(self), (self.kind, self.name, self.known)
