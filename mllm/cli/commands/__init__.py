"""Commands of `fieldmark`: one file, one command. The file's name is the command's (`table_spine.py` is `table-spine`).

To add one, write `mllm/cli/commands/<name>.py` with a dataclass `Options` and a function `command(options)`, which may
return an exit code. The module's docstring is the help text. Import heavy libraries inside the function, so that help
stays fast.
"""

from mllm.registry import Registry

_FILES = Registry(__name__, "command")
names, load = _FILES.names, _FILES.load
