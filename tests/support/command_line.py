"""Runs `fieldmark` in this process, as the installed command does, and keeps what it printed."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from mllm.cli import __main__


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and its output on stdout and stderr together."""

    exit_code: int
    output: str


def fieldmark(words: Sequence[str], typed: str = "") -> Ended:
    """Run `fieldmark WORDS` with `typed` on its standard input."""
    printed, code = io.StringIO(), 0
    with (
        mock.patch("mllm.ctrl_c.end_at_once"),  # Ctrl-C stays with pytest
        mock.patch.object(sys, "argv", ["fieldmark", *words]),
        mock.patch.object(sys, "stdin", io.StringIO(typed)),
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        try:
            __main__.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Ended(code, printed.getvalue())
