"""Fieldmark: multimodal models that tell one species from its double, and point at it."""

import sys

from mllm import __version__, ctrl_c
from mllm.cli import commands
from mllm.errors import FieldmarkError

SHELLS = ("bash", "zsh", "fish", "tcsh")
NOTES = """
`fieldmark COMMAND --help` explains a command. `fieldmark --version` prints the version.

Shell completion, for bash (also zsh, fish, tcsh):

    fieldmark --print-completion bash > ~/.local/share/bash-completion/completions/fieldmark

Exit codes, of every command and program: 0 done; 1 the run failed, or a check found a fault; 2 bad usage or bad input
(one line on stderr that begins with `error:`); 130 stopped by Ctrl-C: the same command continues."""


def main() -> None:
    """Run `fieldmark` with the words of the command line."""
    ctrl_c.end_at_once()  # while the imports below run; those above are quick
    from mllm.cli.programs import run_program

    run_program(lambda: fieldmark(sys.argv[1:]))


def fieldmark(words: list[str]) -> int | None:
    """Run one command; returns its exit code. Raises FieldmarkError: no such command, or what the command raises."""
    from mllm.cli.programs import completion, parse

    if not words or words[0] in ("-h", "--help"):
        print(help_text())
    elif words[0] == "--version":
        print(f"fieldmark {__version__}")
    elif words[0] == "--print-completion":
        if words[1:2] not in [[shell] for shell in SHELLS]:
            raise FieldmarkError(f"--print-completion: name a shell, one of {', '.join(SHELLS)}")
        completion({spelled(name): commands.load(name).Options for name in commands.names()}, "fieldmark", words[1])
    else:
        module = commands.load(words[0].replace("-", "_"))
        return module.command(parse(module.Options, words[1:], prog=f"fieldmark {words[0]}"))


def help_text() -> str:
    """Return what `fieldmark --help` prints: the first sentence about every command, and what holds for all."""
    lines = [f"  {spelled(name):<18}{commands.load(name).__doc__.splitlines()[0]}" for name in commands.names()]
    return "\n".join(["usage: fieldmark COMMAND ...", "", str(__doc__), "", *lines, NOTES])


def spelled(name: str) -> str:
    """Return a command's name as it is typed."""
    return name.replace("_", "-")


if __name__ == "__main__":
    main()
