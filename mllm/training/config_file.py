"""Reads a run's settings from its YAML file and command line, and checks every key. Imports neither torch nor TRL.

Keys outside the `fieldmark:` section are TRL's. Flags override the file: `--style direct --lora.r 8 --seed 1`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from mllm.config import SECTION, Section, Settings
from mllm.errors import ConfigError, FieldmarkError
from mllm.io import strict_yaml
from mllm.io.files import no_such, program_folder

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A run's configuration: our settings, the file's values for TRL, and the command line's flags for TRL."""

    settings: Settings
    trl: Mapping[str, Any]
    flags: tuple[str, ...]
    file: Path


def read(argv: Sequence[str], default: Path, trl_fields: Collection[str]) -> RunConfig:
    """Read the configuration of a run: the YAML file (`--config`, else `default`), overridden by flags.

    `argv` is the command line without the program's name, `trl_fields` are all fields of TRL's config class.

    Raises:
        ConfigError: no such file, no mapping, an unknown key or flag (with the nearest known one), a wrong value.
    """
    argv = list(argv)
    file = default
    for index, word in enumerate(argv):
        if word == "--config" or word.startswith("--config="):
            words = _words(argv, index)
            if not words:
                raise ConfigError(f"the command line: {word} needs a value")
            file = find(words[0])
            del argv[index : index + (1 if "=" in word else 2)]
            break
    values = load_yaml(file)
    ours = values.pop(SECTION, None) or {}
    if not isinstance(ours, Mapping):
        raise ConfigError(f"{file}: {SECTION} must be a section of keys and values")
    for key in values:
        if key not in trl_fields and key != "env":
            known = "a key of the `fieldmark:` section; move it there" if key in Settings.model_fields else None
            raise ConfigError(_unknown(key, str(file), [*trl_fields, SECTION], known))
    flags: list[str] = []
    ours = {key: dict(value) if isinstance(value, Mapping) else value for key, value in ours.items()}
    index = 0
    while index < len(argv):
        word = argv[index]
        name = word.removeprefix("--").split("=", 1)[0]
        if word.startswith("--") and name.split(".")[0] in Settings.model_fields:
            words = _words(argv, index)
            _put(ours, name, words)
            index += 1 if "=" in word else 1 + len(words)
            continue
        if word.startswith("--") and name.removeprefix("no_") not in trl_fields and name not in trl_fields:
            known = [f"--{key}" for key in [*Settings.model_fields, *trl_fields]]
            raise ConfigError(_unknown(f"--{name}", "the command line", known))
        flags.append(word)
        index += 1
    return RunConfig(parse(ours, Settings, str(file)), values, tuple(flags), file)


def find(named: str | Path) -> Path:
    """Return a config file: a path, or the name of a recipe that comes along (`sft`, `recipes/sft.yaml`).

    Raises `ConfigError`: neither a file nor such a name; says the nearest name.
    """
    path, folder = Path(named), program_folder("recipes")
    own = folder / f"{path.stem}.yaml"
    if not path.is_file() and own.is_file() and path.parent in (Path(), Path("recipes")):
        return own
    if not path.is_file():
        close = get_close_matches(path.stem, [recipe.stem for recipe in folder.glob("*.yaml")], n=1)
        raise ConfigError(no_such(path, "config file") + (f"; did you mean the recipe {close[0]}?" if close else ""))
    return path


def load_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping. Raises `ConfigError`, naming the file."""
    values = strict_yaml.read(file, ConfigError, "config file")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: must be a mapping of keys to values, got {type(values).__name__}")
    if odd := [key for key in values if not isinstance(key, str)]:
        raise ConfigError(f"{file}: keys must be names, got {odd[0]!r}")
    return values


def parse(values: Mapping[str, Any], section: type[S], where: str) -> S:
    """Build a settings class from plain values; errors name `where`, the key, and the nearest known key."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(step) for step in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise ConfigError(_unknown(".".join(path), where, _known(section, path))) from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":  # our own messages contain the value
            message = f"{message} (got {first['input']!r})"
        raise ConfigError(f"{where}: {'.'.join([SECTION, *path])}: {message}") from None


def _known(section: type[Section], path: Sequence[str]) -> list[str]:
    """Return the valid dotted keys in place of the unknown key `path`."""
    for step in path[:-1]:
        kinds = [section.model_fields[step].annotation] if step in section.model_fields else []
        kinds = [kind for outer in kinds for kind in (outer, *get_args(outer))]
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), section)
    return [".".join([*path[:-1], name]) for name in section.model_fields]


def _unknown(key: str, where: str, known: Collection[str], hint: str | None = None) -> str:
    near = get_close_matches(key, list(known), n=1, cutoff=0.5)
    hint = hint or (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)[:40])}")
    return f"{where}: unknown key {key!r}: {hint}"


def _words(argv: Sequence[str], index: int) -> list[str]:
    """Return the values of the flag at `index`: what follows `=`, or the words up to the next flag."""
    if "=" in argv[index]:
        return [argv[index].split("=", 1)[1]]
    return list(takewhile(lambda word: not word.startswith("--"), argv[index + 1 :]))


def _put(values: dict[str, Any], name: str, words: Sequence[str]) -> None:
    """Set `a.b.c` in nested dicts, with words parsed as YAML (`2` is a number, `[a, b]` a list, no word means true)."""
    *path, last = name.split(".")
    for step in path:
        inner = values.get(step)
        values[step] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        values = inner
    read_words = [_plain(word) for word in words] or [True]
    values[last] = read_words if len(read_words) > 1 else read_words[0]


def _plain(word: str) -> Any:
    """Parse one command-line word as YAML, and numbers like 1e-5."""
    try:
        value = strict_yaml.loads(word, word)
    except FieldmarkError:
        return word
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-5 as text
        except ValueError:
            return word
    return value
