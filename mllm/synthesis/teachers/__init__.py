"""Teachers write the reasoning that a model is fine-tuned on: one kind per file, named after the file.

A file defines a class `Teacher` with methods of `mllm.synthesis.capabilities` and, if it has settings, a class
`Config` (a `mllm.config.Section`) that it is called with; `Config.HOW` names settings that leave its output alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mllm.config import Section
from mllm.data import manifest
from mllm.errors import ConfigError
from mllm.io import strict_yaml
from mllm.registry import Registry
from mllm.synthesis.capabilities import Reasons
from mllm.synthesis.prompted_teacher import PromptedTeacher

_FILES = Registry(__name__, "teacher")
names, _module = _FILES.names, _FILES.load


def load(name: str, **config: Any) -> Any:
    """Return the teacher `name` with these settings. Raises UnknownNameError or ConfigError; both list known names."""
    module, settings = _module(name), _config(name, config)
    return module.Teacher() if settings is None else module.Teacher(settings)


@dataclass(frozen=True, slots=True)
class Writer:
    """A teacher that reasons, with its name."""

    name: str
    teacher: Reasons

    def truth(self) -> "Writer":
        """Return who writes validation and test data: the teacher that its `TRUTH` names, otherwise itself."""
        name = getattr(self.teacher, "TRUTH", None)
        return self if name is None else Writer(name, load(name))


def identity(name: str, **config: Any) -> dict[str, Any]:
    """Return the settings that a teacher's output depends on (no keys, no addresses) as JSON values, with defaults."""
    settings = _config(name, config)
    return {} if settings is None else settings.model_dump(mode="json", exclude=set(getattr(settings, "HOW", ())))


def read_config(file: str | Path | None, options: Sequence[str] = ()) -> dict[str, Any]:
    """Read a teacher's settings: a YAML file, overridden by `key=value` options (values are YAML too)."""
    values: Any = {}
    if file is not None:
        values = strict_yaml.read(Path(file), ConfigError, "file of a teacher's settings") or {}
        if not isinstance(values, dict):
            raise ConfigError(f"{file}: a teacher's settings are written `key: value`, got a {type(values).__name__}")
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"teacher option {option!r}: key=value is needed")
        values[key.strip()] = strict_yaml.loads(value, f"teacher option {option!r:.100}", ConfigError)
    return {str(key): value for key, value in values.items()}


def _config(name: str, values: dict[str, Any]) -> Section | None:
    """Validate settings against the teacher's `Config`; None for a teacher without settings."""
    cls: type[Section] | None = getattr(_module(name), "Config", None)
    known = sorted(cls.model_fields) if cls else []
    for field in values:
        if field not in known:
            raise ConfigError(f"teacher {name!r} has no field {field!r}; it has {', '.join(known) or 'none'}")
    if cls is None:
        return None
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]  # the input may be an API key
        raise ConfigError(f"teacher {name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def recorded(
    options: Any, teacher: str | None, config: Mapping[str, Any], files: Iterable[str | None]
) -> dict[str, Any]:
    """Return a data program's options (the dataclass of its command line) as its output folder records them.

    Adds a hash of each of `files` that exists, and of the teacher's settings (`config`) what `identity` keeps.
    """
    values = {key: value for key, value in asdict(options).items() if key != "folder"}
    settings = identity(teacher, **config) if teacher else {}
    return {**values, "teacher": teacher, "teacher_config": settings, "digests": manifest.digests(files)}


@contextmanager
def closing(*teachers: Any, report: Callable[[str], None]) -> Iterator[None]:
    """However the block ends, close each teacher once and report what it cost and every request that failed."""
    try:
        yield
    finally:
        for teacher in {id(one): one for one in teachers}.values():
            if isinstance(teacher, PromptedTeacher):
                teacher.close()
                report(str(teacher.report()))
