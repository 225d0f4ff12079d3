"""Teachers: who writes the reasoning that a model is fine-tuned on. One way a file; the file name is the registry.

A teacher's file defines a class `Teacher` with `reason(request: Reasoning) -> str`: a thought in which every thing of
the image is looked at and the thing asked for is found. It refers to boxes as `<obj:K>`, K an index into
`sample.things`, and reads as if its writer had found the answer by looking: it never says that it was told. What else a
teacher may be able to do is in `mllm.synthesis.capabilities`. A teacher with settings defines a class `Config` (a
`mllm.config.Section`) whose `HOW` names those that change nothing in what it says; its `Teacher` is called with one.

What a thought has to end on hangs on the question: one thing; all things of a kind (task `ground_all`), named together
in the last sentence; or, where the sample has no box, that none of the candidates fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mllm.config import Section
from mllm.data import manifest
from mllm.errors import ConfigError
from mllm.records import REFERENCE, Sample
from mllm.registry import Registry
from mllm.synthesis import consistency
from mllm.synthesis.capabilities import Reasoning, Reasons, Reports

__all__ = [
    "Reasoning", "Teacher", "closing", "conclusion", "concluded", "identity", "load", "names", "problem", "read_config",
    "recorded", "target_index", "targets",
]  # fmt: skip

_CHOICE = re.compile(r"\bSo (\d+(?: <obj:\d+>)?(?:, \d+(?: <obj:\d+>)?)*)\.?\s*$")
_CHOSEN = re.compile(r"(\d+)(?: <obj:(\d+)>)?(?:, |$)")
_SENTENCE_END = re.compile(r"[.!?]\s+")
_NONE = re.compile(
    r"\b(?:none|nowhere|absent|missing|neither|nothing (?:here|fits|matches)|"
    r"no (?:candidate|such|match|one)|(?:is|are|was) not|isn't|does not (?:appear|occur)|not (?:here|there|shown))\b",
    re.IGNORECASE,
)
_TOLD = re.compile(
    r"ground[- ]truth|annotat|labell?ed as|\b(?:the|its|given) labels? (?:says?|is|tells?)|"
    r"(?:was|were|am|been|are) (?:told|given|provided)|"
    r"(?:provided|given|supplied) (?:box|name|answer|information|coordinate)|"
    r"according to the (?:prompt|question|caption)|"
    r"bounding box of the target|(?:the )?(?:correct|right) answer is|as (?:stated|given|provided)\b",
    re.IGNORECASE,
)


Teacher = Reasons
"""Anything that writes reasoning; `mllm.synthesis.capabilities` says what else a teacher may be able to do."""


_FILES = Registry(__name__, "teacher")
names, _module = _FILES.names, _FILES.load


def load(name: str, **config: Any) -> Any:
    """Return the teacher called `name` with these settings. It reasons; what else it can do, ask `mllm.synthesis.capabilities`.

    Raises:
        UnknownNameError: no such teacher; lists the known ones.
        ConfigError: a field it does not have (lists those it has), or an impossible value.
    """
    made, built = _module(name), _config(name, config)
    return made.Teacher() if built is None else made.Teacher(built)


def identity(name: str, **config: Any) -> dict[str, Any]:
    """Return the settings that a teacher's words depend on, defaults included, as json values. Errors as `load`.

    Keys, addresses and everything about retries are left out: data made with others are the same data.
    """
    built = _config(name, config)
    how = getattr(_module(name).Config, "HOW", frozenset()) if built is not None else frozenset()
    return {} if built is None else built.model_dump(mode="json", exclude=set(how))


def read_config(file: str | Path | None, options: Sequence[str] = ()) -> dict[str, Any]:
    """Read a teacher's settings: a YAML file, then `key=value` options over it (values are YAML too).

    Raises:
        ConfigError: the file cannot be read or is no mapping; an option without `=`.
    """
    values: Any = {}
    if file is not None:
        try:
            values = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: settings of a teacher cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{file}: settings of a teacher are written `key: value`, got a {type(values).__name__}")
    for option in options:
        key, is_there, value = option.partition("=")
        if not is_there or not key.strip():
            raise ConfigError(f"teacher option {option!r}: key=value is needed")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"teacher option {option!r}: the value is no YAML: {error}") from None
    return {str(key): value for key, value in values.items()}


def _config(name: str, values: dict[str, Any]) -> Section | None:
    """Check settings against what the teacher knows; None for a teacher without any."""
    cls: type[Section] | None = getattr(_module(name), "Config", None)
    known = sorted(cls.model_fields) if cls is not None else []
    for field in values:
        if field not in known:
            raise ConfigError(f"teacher {name!r} has no field {field!r}; it has {', '.join(known) or 'none'}")
    if cls is None:
        return None
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]  # an input may be a key
        raise ConfigError(f"teacher {name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def recorded(settings: Any, files: Iterable[str | None]) -> dict[str, Any]:
    """Return a data program's settings as its folder keeps them: with the hash of every file they name (an input that
    was changed is another input), and of its teacher only what may be written down, no keys and no addresses.

    Args:
        settings: a dataclass with the fields `teacher` and `teacher_config`.
        files: what it names; None, and what is no file here, is passed over.
    """
    said = identity(settings.teacher, **settings.teacher_config)
    return {**asdict(settings), "teacher_config": said, "digests": manifest.digests(files)}


@contextmanager
def closing(*given: Any, tell: Callable[[str], None]) -> Iterator[None]:
    """However the block ends, close each teacher once and tell what it cost and every request that failed."""
    try:
        yield
    finally:
        for teacher in {id(one): one for one in given}.values():
            if isinstance(teacher, Reports):
                teacher.close()
                tell(str(teacher.report()))


def targets(sample: Sample) -> tuple[int, ...]:
    """Return which of `sample.things` are asked for: of the named entity, none of them where it is absent."""
    return tuple(k for k, thing in enumerate(sample.things) if thing.entity == sample.entity)


def target_index(sample: Sample) -> int:
    """Return which of `sample.things` is the one asked for."""
    return targets(sample)[0]


def conclusion(thought: str) -> int | None:
    """Return the thing a thought ends on: the one listed as `N <obj:K>` if it ends `So N.` or `So N <obj:K>.`, else
    its last `<obj:K>`; None where the number was not listed, or with another box than the one behind it."""
    if choice := _CHOICE.search(thought):
        return _listed(thought, choice[1])[0]
    references = REFERENCE.findall(thought)
    return int(references[-1]) if references else None


def concluded(sample: Sample, thought: str) -> tuple[int, ...] | None:
    """Return all things that a thought ends on, in their order, () where it says that none fits; None: cannot be told.

    A question for one thing ends on one; a question for all of a kind on those named in the last sentence.
    """
    last = _SENTENCE_END.split(thought.strip())[-1]
    if not REFERENCE.search(last) and _NONE.search(last):
        return ()
    if sample.task != "ground_all":
        one = conclusion(thought)
        return None if one is None or not sample.boxes else (one,)
    if choice := _CHOICE.search(thought):
        return tuple(sorted(index for index in _listed(thought, choice[1]) if index is not None))
    return tuple(sorted({int(number) for number in REFERENCE.findall(last)})) or None


def _listed(thought: str, chosen: str) -> list[int | None]:
    """Return the things behind the numbers of `1 <obj:0>, 3`; None where the thought listed no such number, or with
    another box."""
    found: list[int | None] = []
    for number, box in _CHOSEN.findall(chosen):
        listed = re.search(rf"(?<!\S){number} <obj:(\d+)>", thought)
        found.append(int(listed[1]) if listed and box in ("", listed[1]) else None)
    return found


def problem(sample: Sample, thought: str, cards: Mapping[str, tuple[str, ...]] | None = None) -> str | None:
    """Return why a thought must not be trained on, a short stable phrase, or None when it is sound.

    With `cards`, what it says of the thing asked for is compared with the card of its kind.
    """
    named = {int(number) for number in REFERENCE.findall(thought)}
    if any(number >= len(sample.things) for number in named):
        return "refers to a thing that is not there"
    if named != set(range(len(sample.things))):
        return "a candidate was not looked at"
    ends = concluded(sample, thought)
    if ends != targets(sample):
        if not sample.boxes:
            return "does not conclude that none fits"
        return "concludes that none fits" if ends == () else "concludes on another thing"
    if _TOLD.search(thought):
        return "says that it was told"
    if re.search(r"</?(?:think|answer)>", thought):
        return "holds answer tags"
    if cards is not None and consistency.contradictions(sample, thought, cards):
        return "gives the target a mark that its card does not hold"
    return None
