"""Commands of `fieldmark`: one file, one command. The file's name is the command's (`table_spine.py` is `table-spine`).

To add one, write `mllm/cli/commands/<name>.py` with a function `command`; its docstring is its help. Heavy libraries
are imported inside the function, so that help comes at once.
"""

from mllm.registry import Registry

_FILES = Registry(__name__, "command", "command")
names, load = _FILES.names, _FILES.load
