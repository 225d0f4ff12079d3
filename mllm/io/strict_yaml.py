"""Strict YAML: a repeated key, deep nesting and aliases that stand for billions of values are errors."""

from pathlib import Path
from typing import Any

import yaml

from mllm.errors import FieldmarkError
from mllm.io.files import no_such, read_text

MAX_ALIASES, MAX_DEPTH = 30, 50
"""Aliases of lists and objects in a text (so many stand for some ten thousand values at most), and levels."""
_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""With libyaml, five times as fast; some builds of PyYAML lack it."""


class _Loader(_Fast):
    """Refuses a key that a mapping holds twice, of which PyYAML would silently keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if (name := str(key.value)) in seen:
                raise yaml.MarkedYAMLError(problem=f"key {name!r:.60} is given twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def loads(text: str, where: object, kind: type[FieldmarkError] = FieldmarkError) -> Any:
    """Parse YAML. Raises `kind`; `where` (a file) begins the error, and the line follows."""
    try:
        _check_size(text)
        return yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise kind(f"{where}{line}: broken YAML: {error.problem:.200}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # odd characters, impossible dates, endless numbers
        problem = str(error).split("\n")[0] or type(error).__name__
        raise kind(f"{where}: broken YAML: {problem:.200}") from None


def key_lines(text: str) -> dict[str, int]:
    """Return the line of each key of a text that is one mapping and has been parsed by `loads`."""
    node = yaml.compose(text, _Loader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return {str(key.value).strip(): key.start_mark.line + 1 for key, _ in pairs}


def read(file: Path, kind: type[FieldmarkError], what: str = "file") -> Any:
    """Read a YAML file; `what` it is begins the error where it is missing. Raises `kind`, with file and line."""
    if not file.is_file():
        raise kind(no_such(file, what))
    return loads(read_text(file, kind), file, kind)


def _check_size(text: str) -> None:
    """Refuse many aliases and deep nesting, before anything is built."""
    scalars: set[str] = set()
    aliases = depth = 0
    for event in yaml.parse(text, _Fast):
        if isinstance(event, yaml.AliasEvent):
            aliases += event.anchor not in scalars
        elif anchor := getattr(event, "anchor", None):
            (scalars.add if isinstance(event, yaml.ScalarEvent) else scalars.discard)(anchor)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > MAX_ALIASES or depth > MAX_DEPTH:
            many = f"more than {MAX_ALIASES} aliases of lists or objects; write them out"
            problem = many if aliases > MAX_ALIASES else f"nested more than {MAX_DEPTH} levels deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
