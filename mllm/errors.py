"""Errors for users. Each message says where the error is and how to fix it.

Bad generated text is never an error: it is data and scores 0. Bad files, settings and programs raise these classes, all
of which are `ValueError`s.
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
    """An error in a file, a name or a setting. The message says how to fix it."""


class BoxError(FieldmarkError):
    """Numbers that are not a box: not finite, inverted, empty, or outside their frame."""


class RecordError(FieldmarkError):
    """A row of a record file that cannot be read. The message starts with `file:line` and names the field."""


class ImageError(FieldmarkError):
    """A file that cannot be opened as an image: missing, truncated, not an image, or too large."""


class FamilyError(FieldmarkError):
    """An unknown model family, or a checkpoint without the convention that it was trained with."""


class ConfigError(FieldmarkError):
    """A setting that does not exist or has an impossible value."""


class SourceError(FieldmarkError):
    """An input that cannot be read: names file, line and field, and says what to do."""


class UnknownNameError(FieldmarkError):
    """An unknown name (of a reward, a domain, a family ...). The message lists the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Build the message: `name` is not a `kind`; `known` are the valid names."""
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        close = get_close_matches(name[:100], self.known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r:.100}.{hint} Known: {', '.join(self.known) or 'none'}.")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...]]]:
        """Pickle by the three arguments; the default would pass the message alone."""
        return type(self), (self.kind, self.name, self.known)
