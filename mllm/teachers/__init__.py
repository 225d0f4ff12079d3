"""Teachers: who writes the reasoning that a model is fine-tuned on. One way a file; the file name is the registry.

A teacher's file defines a class `Teacher` with `reason(request: Reasoning) -> str`: a thought in which every thing of
the picture is looked at and the thing asked for is found. It refers to boxes as `<obj:K>`, K an index into
`sample.things`, and reads as if its writer had found the answer by looking: it never says that it was told.
"""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from typing import cast

from mllm.abilities import Reasoning, Reasons
from mllm.errors import UnknownNameError
from mllm.records import REFERENCE, Sample

__all__ = ["Reasoning", "Teacher", "conclusion", "load", "names", "problem", "target_index"]

_CHOICE = re.compile(r"\bSo (\d+)(?: <obj:(\d+)>)?\.?\s*$")
_TOLD = re.compile(
    r"ground[- ]truth|annotat|labell?ed as|\b(?:the|its|given) labels? (?:says?|is|tells?)|"
    r"(?:was|were|am|been|are) (?:told|given|provided)|"
    r"(?:provided|given|supplied) (?:box|name|answer|information|coordinate)|"
    r"according to the (?:prompt|question|caption)|"
    r"bounding box of the target|(?:the )?(?:correct|right) answer is|as (?:stated|given|provided)\b",
    re.IGNORECASE,
)


Teacher = Reasons
"""Anything that writes reasoning; `mllm.abilities` says what else a teacher may be able to do."""


def names() -> tuple[str, ...]:
    """List the teachers there are, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Teacher:
    """Return the teacher called `name`; an unknown name is an error that lists the known ones."""
    if name not in names():
        raise UnknownNameError("teacher", name, names())
    return cast(Teacher, import_module(f"{__name__}.{name}").Teacher())


def target_index(sample: Sample) -> int:
    """Return which of `sample.things` is the one asked for."""
    return next(k for k, thing in enumerate(sample.things) if thing.entity == sample.entity)


def conclusion(thought: str) -> int | None:
    """Return the thing a thought ends on: the one listed as `N <obj:K>` if it ends `So N.` or `So N <obj:K>.`, else
    its last `<obj:K>`; None where the number was not listed, or with another box than the one behind it."""
    if choice := _CHOICE.search(thought):
        listed = re.search(rf"(?<!\S){choice[1]} <obj:(\d+)>", thought)
        return int(listed[1]) if listed and choice[2] in (None, listed[1]) else None
    references = REFERENCE.findall(thought)
    return int(references[-1]) if references else None


def problem(sample: Sample, thought: str) -> str | None:
    """Return why a thought must not be trained on, a short stable phrase, or None when it is sound."""
    named = {int(number) for number in REFERENCE.findall(thought)}
    if any(number >= len(sample.things) for number in named):
        return "refers to a thing that is not there"
    if named != set(range(len(sample.things))):
        return "a candidate was not looked at"
    if conclusion(thought) != target_index(sample):
        return "concludes on another thing"
    if _TOLD.search(thought):
        return "says that it was told"
    if re.search(r"</?(?:think|answer)>", thought):
        return "holds answer tags"
    return None
