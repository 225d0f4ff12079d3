"""Checks of reasoning before it is used for training: what it concludes on, and whether it is sound.

A thought refers to boxes as `<obj:K>`, K an index into `sample.things`. It must look at every thing and end on the one
asked for, on all of a kind (task `ground_all`), or, where the sample has no box, on the statement that none fits.
"""

import re
from collections.abc import Mapping

from mllm.prompting.tasks.name import named_in
from mllm.records import REFERENCE, Sample
from mllm.synthesis import consistency

_CHOICE = re.compile(r"\bSo (\d+(?: <obj:\d+>)?(?:, \d+(?: <obj:\d+>)?)*)\.?\s*$")
_CHOSEN = re.compile(r"(\d+)(?: <obj:(\d+)>)?(?:, |$)")
_SENTENCE_END = re.compile(r"[.!?]\s+")
_NONE_FITS = re.compile(
    r"\b(?:none|nowhere|absent|missing|neither|nothing (?:here|fits|matches)|"
    r"no (?:candidate|such|match|one)|(?:is|are|was) not|isn't|does not (?:appear|occur)|not (?:here|there|shown))\b",
    re.IGNORECASE,
)
_LEAK = re.compile(
    r"ground[- ]truth|annotat|labell?ed as|\b(?:the|its|given) labels? (?:says?|is|tells?)|"
    r"(?:was|were|am|been|are) (?:told|given|provided)|"
    r"(?:provided|given|supplied) (?:box|name|answer|information|coordinate)|"
    r"according to the (?:prompt|question|caption)|"
    r"bounding box of the target|(?:the )?(?:correct|right) answer is|as (?:stated|given|provided)\b",
    re.IGNORECASE,
)


def targets(sample: Sample) -> tuple[int, ...]:
    """Return the indices of `sample.things` that are asked for: those of the named entity, () if it is absent."""
    return tuple(k for k, thing in enumerate(sample.things) if thing.entity == sample.entity)


def conclusion(thought: str) -> int | None:
    """Return the index of the thing that a thought ends on.

    That is the thing listed as `N <obj:K>` if the thought ends `So N.` or `So N <obj:K>.`, otherwise its last
    `<obj:K>`; None if the number was never listed, or was listed with another box than the one after it.
    """
    if choice := _CHOICE.search(thought):
        return _listed(thought, choice[1])[0]
    references = REFERENCE.findall(thought)
    return int(references[-1]) if references else None


def concluded(sample: Sample, thought: str) -> tuple[int, ...] | None:
    """Return the indices of all things a thought ends on, sorted: () where it says that none fits, None if unclear.

    A question for one thing ends on one; a question for all of a kind ends on those named in the last sentence.
    """
    last = _SENTENCE_END.split(thought.strip())[-1]
    if not REFERENCE.search(last) and _NONE_FITS.search(last):
        return ()
    if sample.task != "ground_all":
        one = conclusion(thought)
        return None if one is None or not sample.boxes else (one,)
    if choice := _CHOICE.search(thought):
        return tuple(sorted(index for index in _listed(thought, choice[1]) if index is not None))
    return tuple(sorted({int(number) for number in REFERENCE.findall(last)})) or None


def _listed(thought: str, chosen: str) -> list[int | None]:
    """Return the things behind the numbers of `1 <obj:0>, 3`; None for one not listed, or with another box."""
    found: list[int | None] = []
    for number, box in _CHOSEN.findall(chosen):
        listed = re.search(rf"(?<!\S){number} <obj:(\d+)>", thought)
        found.append(int(listed[1]) if listed and box in ("", listed[1]) else None)
    return found


def wrong_conclusion(sample: Sample, thought: str) -> str | None:
    """Return why a thought does not lead to the answer, or None: the filter of DeepPerception and KARL."""
    named = {int(number) for number in REFERENCE.findall(thought)}
    if any(number >= len(sample.things) for number in named):
        return "refers to a thing that is not there"
    if re.search(r"</?(?:think|answer)>", thought):
        return "holds answer tags"
    if sample.task == "name":
        last = _SENTENCE_END.split(thought.strip())[-1]
        return None if named_in(last, sample) == sample.entity else "concludes on another name"
    ends = concluded(sample, thought)
    if ends == targets(sample):
        return None
    if not sample.boxes:
        return "does not conclude that none fits"
    return "concludes that none fits" if ends == () else "concludes on another thing"


def problem(sample: Sample, thought: str, cards: Mapping[str, tuple[str, ...]] | None = None) -> str | None:
    """Return why a thought must not be trained on, as a short stable phrase, or None if it is sound.

    With `cards`, its statements about the thing asked for are compared with the card of that entity.
    """
    if reason := wrong_conclusion(sample, thought):
        return reason
    looked = {int(number) for number in REFERENCE.findall(thought)}
    asked = {int(number) for number in REFERENCE.findall(sample.question)}
    if (sample.task != "name" and looked != set(range(len(sample.things)))) or not asked <= looked:
        return "a candidate was not looked at"
    if _LEAK.search(thought):
        return "says that the answer was given"
    if cards is not None and consistency.contradictions(sample, thought, cards):
        return "gives the target a mark that its card does not hold"
    return None
