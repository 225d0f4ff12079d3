"""The `fieldmark` command: every file of mllm/cli/commands is one of its commands."""

from __future__ import annotations

import sys

import typer

from mllm.cli import commands
from mllm.errors import FieldmarkError

app = typer.Typer(
    help="Fieldmark: multimodal models that tell one species from its double, and point at it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name in commands.names():
    app.command(_name.replace("_", "-"))(commands.load(_name))


def main() -> None:
    """Run the command; what a person can put right is one line on stderr, not a traceback."""
    try:
        app()
    except FieldmarkError as error:
        sys.exit(f"fieldmark: {error}")


if __name__ == "__main__":
    main()
