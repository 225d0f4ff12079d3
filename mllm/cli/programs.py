"""The command line of every program: options are one frozen dataclass, and every program ends in the same way.

A string below a field is its help. The names of the fields are the flags (`--max-new-tokens`), those of nested groups
(`mllm/cli/options.py`) too. A tuple is an option that may be repeated, `Positional[...]` an argument without a flag, a
boolean a switch (`--overwrite`, or `--no-images` where the default is true). `mllm/cli/commands/compare.py` is an
example; a program of its own begins as `mllm/ctrl_c.py` says and ends with `run_program(main)`. `mllm.errors.ExitCode`
lists the exit codes.
"""

import io
import os
import re
import shlex
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import reduce
from itertools import groupby
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro import conf

from mllm import __version__, ctrl_c
from mllm.errors import ExitCode, FieldmarkError
from mllm.io.files import DISK_FULL, disk_full

T = TypeVar("T")
MARKERS = (
    conf.OmitArgPrefixes, conf.UseAppendAction, conf.FlagCreatePairsOff, conf.DisallowNone,
    conf.PositionalMetavarFromFieldName, conf.HelptextFromCommentsOff,
)  # fmt: skip
"""The dialect, in tyro's words."""
_POSITIONAL = get_args(conf.Positional[int])[1]


@dataclass(frozen=True)
class Range:
    """Limits of a number, both inclusive: `Annotated[int, Range(1)]`."""

    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True)
class _Option:
    """One field of an options class: where its value is found, what it is called, and what it may be."""

    path: tuple[str, ...]
    flag: str
    default: Any
    positional: bool
    repeatable: bool
    limits: Range | None

    def value(self, options: Any) -> Any:
        return reduce(getattr, self.path, options)


def parse(cls: type[T], argv: Sequence[str] | None = None, *, prog: str | None = None) -> T:
    """Read a command line.

    Args:
        cls: the dataclass of the options; the docstring of its module is the help text. `RENAMED` in it, or in one of
            its groups, maps old spellings of flags to new ones; using one prints a warning.
        argv: the words after the program's name; None for those of `sys.argv`.
        prog: name of the program in its help; None for the path of the module.

    Raises:
        FieldmarkError: an unknown flag (names the nearest known one), a missing or impossible value.
        SystemExit: after `--help` and `--version`, with code 0.
    """
    module = sys.modules[cls.__module__]
    prog = prog or "/".join(Path(getattr(module, "__file__", None) or cls.__module__).parts[-2:])
    words, known = list(sys.argv[1:] if argv is None else argv), list(_options(cls))
    if "--version" in words[: words.index("--") if "--" in words else None]:
        print(f"{prog} (fieldmark {__version__})")
        raise SystemExit(0)
    words = _separate(_rename(words, cls), known)
    _check_flags(words, known)
    description = re.sub(r"(?m)^( {4}.*)\n(?=\S)", r"\1\n\n", (module.__doc__ or "").strip())  # tyro joins such lines
    options = _read(cls, words, prog, description)
    for option in known:
        _check_value(option, option.value(options))
    return options


def run_program(main: Callable[[], int | None]) -> None:
    """Run `main` and end the process as every program does: one line for an error, and an exit code of `ExitCode`."""
    try:
        code = ctrl_c.run(main)
        sys.stdout.flush()  # an error of its disk belongs below
    except FieldmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(ExitCode.USAGE) from None
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        try:
            print(end="" if error.filename else "\n", flush=True)
        except OSError:  # stdout is on that disk; Python would flush it once more at the end, and complain
            error.filename = error.filename or os.path.realpath("/dev/stdout")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: {disk_full(error)}", file=sys.stderr)
        raise SystemExit(ExitCode.FAILED) from None
    if code:
        raise SystemExit(code)


def typed_command(program: str, options: Any, leave_out: Sequence[str] = ()) -> str:
    """Return the command that gives these options: every flag that is not at its default, but those named."""
    words = ["python", program]
    for option in _options(type(options)):
        value = option.value(options)
        if option.path[-1] in leave_out or value in (None, (), option.default):
            continue
        for one in value if isinstance(value, tuple) else [value]:
            words += [option.flag] if isinstance(one, bool) else [option.flag, str(one)]
    return shlex.join(words)


def completion(commands: Mapping[str, Any], prog: str, shell: str) -> None:
    """Print a script that completes the commands of a program, given with their options classes, and their flags."""
    arguments = ["--tyro-write-completion", shell, "-"]
    tyro.extras.subcommand_cli_from_dict(dict(commands), prog=prog, args=arguments, config=MARKERS)


def _options(cls: Any, default: Any = None, path: tuple[str, ...] = ()) -> Iterator[_Option]:
    """Yield the fields of an options class, those of nested groups in their place."""
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        value = field.default if field.default_factory is MISSING else field.default_factory()
        value = value if default is None else getattr(default, field.name)
        hint, notes = hints[field.name], ()
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _options(hint, None if value is MISSING else value, (*path, field.name))
            continue
        name = next((name for note in notes if (name := getattr(note, "name", None))), field.name).replace("_", "-")
        yield _Option(
            path=(*path, field.name),
            flag=f"--no-{name}" if value is True else f"--{name}",
            default=value,
            positional=any(note is _POSITIONAL for note in notes),
            repeatable=get_origin(hint) is tuple,
            limits=next((note for note in notes if isinstance(note, Range)), None),
        )


def _rename(words: Sequence[str], cls: Any) -> list[str]:
    """Replace old spellings of flags by the new ones, with a warning."""
    renamed, found = _renamed(cls), []
    for word in words:
        old, equals, value = word.partition("=")
        new = renamed.get(old, old)
        if new != old:
            print(f"warning: {old} is now {new}; the old spelling goes with the next release", file=sys.stderr)
        found.append(new + equals + value)
    return found


def _renamed(cls: Any) -> dict[str, str]:
    """Return the old spellings of flags, those of nested groups too."""
    groups = [_renamed(hint) for hint in get_type_hints(cls).values() if is_dataclass(hint)]
    return dict(ChainMap(getattr(cls, "RENAMED", {}), *groups))


def _separate(words: Sequence[str], known: Sequence[_Option]) -> list[str]:
    """Let several values follow a repeatable flag (`--sizes 3 5`), in programs without positional arguments."""
    if any(option.positional for option in known):
        return list(words)
    repeatable, found, last = {option.flag for option in known if option.repeatable}, [], ""
    for word, before in zip(words, ("", *words), strict=False):
        if word.startswith("--"):
            last = word
        elif last in repeatable and before != last:
            found.append(last)
        found.append(word)
    return found


def _check_flags(words: Sequence[str], known: Sequence[_Option]) -> None:
    flags = ["--help", "--version", *(option.flag for option in known if not option.positional)]
    for word in words:
        if word == "--":
            return
        flag = word.partition("=")[0].replace("_", "-")
        if re.match("--[a-z]", flag) and flag not in flags:
            close = get_close_matches(flag, flags, n=1)
            raise FieldmarkError(f"unknown flag {flag}" + (f"; did you mean {close[0]}?" if close else "; see --help"))


def _check_value(option: _Option, value: Any) -> None:
    """Refuse a number outside its limits, and an empty list of required arguments."""
    if option.positional and option.default is MISSING and value == ():
        raise FieldmarkError(f"{option.path[-1].upper()} is missing; see --help")
    if option.limits is not None and value is not None and not option.limits.low <= value <= option.limits.high:
        low, high = option.limits.low, option.limits.high
        allowed = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise FieldmarkError(f"{option.flag} {value}: must be {allowed}")


def _read(cls: type[T], words: Sequence[str], prog: str, description: str) -> T:
    """Let tyro read the words; what it prints when it refuses them becomes one line."""
    shown, refused = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding), io.StringIO()
    before, columns = os.environ.get("COLUMNS"), get_terminal_size().columns
    os.environ["COLUMNS"] = str(columns if {"-h", "--help"} & {*words} else 1000)  # no line of an error is broken
    try:
        with redirect_stdout(shown), redirect_stderr(refused):
            return tyro.cli(cls, prog=prog, description=description, args=words, config=MARKERS)
    except SystemExit as end:
        if end.code:
            raise FieldmarkError(_first_lines(refused.getvalue())) from None
        shown.seek(0)
        print(_without_empty_defaults(shown.read()), end="")
        raise
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)


def _without_empty_defaults(text: str) -> str:
    """Leave empty defaults, `(default: None)` and `(default: False)`, out of a help text, its boxes as they are."""
    text = re.sub(r"\(default:[\s│]+(?:None|False)?\)", lambda found: re.sub(r"[^\s│]", " ", found[0]), text)
    return re.sub(r"(?m)^│ *│\n", "", text)


def _first_lines(box: str) -> str:
    """Return the message in a box that tyro printed, borders removed."""
    rows = [line.strip("│ ") for line in box.splitlines()[1:]]  # the first is the title
    parts = [list(lines) for is_rule, lines in groupby(rows, re.compile("[─╰╯-]+$").match) if not is_rule]
    text = re.sub(r"no type matching .*<class '\w+'>: ", "", " ".join(filter(None, parts[0])))
    text = text.removeprefix("Error parsing ").removesuffix(".")
    return f"{text[:1].lower()}{text[1:]}; see --help"
