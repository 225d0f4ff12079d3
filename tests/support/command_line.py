"""Runs programs in this process or a fork of it, as a user does: imports need not be paid again."""

from __future__ import annotations

import io
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from mllm.cli import __main__

ROOT = Path(__file__).resolve().parents[2]


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


def fork(words: Sequence[str], output: int, prepare: Callable[[], None] = lambda: None) -> int:
    """Fork a process that runs `prepare`, then a program: a file of this repository (`recipes/sft.py`) with its flags.

    Returns the process's number; what it prints goes to the descriptor `output`.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))  # not pytest's files
        prepare()
        sys.argv = list(words)
        try:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
    except BaseException:  # any error belongs in the output, and the child must not go on as a second parent
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
