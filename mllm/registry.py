"""Plugins: each file of a plugin folder adds one thing, named after the file, and is imported when it is loaded.

The folder's `__init__.py` says what a file must define and contains `_FILES = Registry(__name__, "reward", "Reward")`.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from mllm.errors import UnknownNameError


class Registry:
    """The modules of a package (dotted name), each of which defines one `kind` (a word for errors).

    `load` returns the module's `attribute`, or with None the module itself.
    """

    def __init__(self, package: str, kind: str, attribute: str | None = None) -> None:
        self.package, self.kind, self.attribute = package, kind, attribute

    def names(self) -> tuple[str, ...]:
        """Return the known names, sorted."""
        return tuple(sorted(module.name for module in iter_modules(import_module(self.package).__path__)))

    def load(self, name: str) -> Any:
        """Return what the file `name` defines. Raises UnknownNameError: no such file; lists the known names."""
        if name not in self.names():
            raise UnknownNameError(self.kind, name, self.names())
        module = import_module(f"{self.package}.{name}")
        return module if self.attribute is None else getattr(module, self.attribute)
