"""Plugins: each file of a plugin folder adds one thing, named after the file, and is read when it is loaded.

The folder's `__init__.py` says what a file must define. It contains `_FILES = Registry(__name__, "reward", "Reward")`
for Python files, or `_FILES = YamlRegistry(__name__, "domain", read)` for YAML files.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from mllm.errors import UnknownNameError

T = TypeVar("T")


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
        return self._load(name)

    def _load(self, name: str) -> Any:
        module = import_module(f"{self.package}.{name}")
        return module if self.attribute is None else getattr(module, self.attribute)


class YamlRegistry(Registry, Generic[T]):
    """The YAML files in a package's folder, each of which describes one `kind`.

    `load` returns what `read` makes of the file, which it reads once.
    """

    def __init__(self, package: str, kind: str, read: Callable[[Path], T]) -> None:
        super().__init__(package, kind)
        self._read, self._loaded = read, dict[str, T]()

    def names(self) -> tuple[str, ...]:
        """Return the known names, sorted."""
        return tuple(sorted(file.stem for file in self._folder().glob("*.yaml")))

    def load(self, name: str) -> T:
        """Return what the file `name` describes. Raises UnknownNameError: no such file; lists the known names."""
        if name not in self._loaded:
            self._loaded[name] = super().load(name)
        return self._loaded[name]

    def _load(self, name: str) -> T:
        return self._read(self._folder() / f"{name}.yaml")

    def _folder(self) -> Path:
        return Path(import_module(self.package).__path__[0])
