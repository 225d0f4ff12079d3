"""Teachers: who writes the reasoning that a model is fine-tuned on. One way a file; the file name is the registry.

A teacher's file defines a class `Teacher` with `reason(request: Reasoning) -> str`: a thought in which every thing of
the picture is looked at and the thing asked for is found. It refers to boxes as `<obj:K>`, K an index into
`sample.things`, and reads as if its writer had found the answer by looking: it never says that it was told.

What a thought has to end on hangs on the question: one thing; all things of a kind (task `ground_all`), named together
in the last sentence; or, where the sample has no box, that none of the candidates fits.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping
from importlib import import_module
from typing import cast

from mllm import agreement
from mllm.abilities import Reasoning, Reasons
from mllm.errors import UnknownNameError
from mllm.records import REFERENCE, Sample

__all__ = ["Reasoning", "Teacher", "conclusion", "concluded", "load", "names", "problem", "target_index", "targets"]

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
"""Anything that writes reasoning; `mllm.abilities` says what else a teacher may be able to do."""


def names() -> tuple[str, ...]:
    """List the teachers there are, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Teacher:
    """Return the teacher called `name`; an unknown name is an error that lists the known ones."""
    if name not in names():
        raise UnknownNameError("teacher", name, names())
    return cast(Teacher, import_module(f"{__name__}.{name}").Teacher())


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
    if cards is not None and agreement.contradictions(sample, thought, cards):
        return "gives the target a mark that its card does not hold"
    return None
