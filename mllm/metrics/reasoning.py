"""Where reasoning fails: each step of a thought is measured on its own, given the steps before it.

A thought recalls the marks of the named thing, goes through the candidates (a box and the marks seen), and chooses:

    Talo ruvi: round, red, striped, blue cap. 1 (12,34),(56,78): round fits, red fits, plain not, blue cap fits, not.
    2 ..., fits. So 2 (...).

The teacher `cards` writes sentences instead (`mllm.prompting.prose`), which are read too: candidates are numbered in
their order, and the box after them is the choice.

Boxes are in a model family's own form; the one after the choice is optional. "Right" means true of the image
(`Thing.marks`, `Thing.box`), except for the comparison, which is judged on the model's own words.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mllm.boxes import Box, Frame, iou
from mllm.errors import BoxError
from mllm.models.families import Family
from mllm.prompting import prose
from mllm.records import Answer, Sample, Thing

VERDICTS = {"fits": True, "not": False}
"""The optional word after a mark, and after all of a candidate's marks, that says whether they match the recall."""
FOUND_AT = 0.5 - 1e-9
"""IoU from which a candidate's box has found a thing (0.5; whole numbers may be a hair below it)."""
STEPS = {
    "form": "thoughts with a recall, candidates and a choice, of all samples with known marks",
    "name": "the thought begins with the name asked for, of thoughts with a recall",
    "recall": "every mark recalled and none invented, of all samples with known marks",
    "recall words": "words of the true marks that were recalled, averaged over all samples with known marks",
    "found": "things of the image that a candidate's box found at IoU 0.5, of all things",
    "marks seen": "every mark seen right, of the things found",
    "mark seen": "single marks seen right, of all marks of the things found",
    "mark judged": "the verdict on a single mark agrees with the model's own recall, of marks with a verdict",
    "judged": "the verdict on a candidate agrees with its own marks and recall, of candidates with a verdict",
    "compared": "the choice agrees best with the model's own recall, of thoughts whose words prefer some candidates",
    "compared given true": "the choice is the thing asked for, of thoughts with recall, found and marks seen all right",
    "chosen": "the choice is the thing asked for (IoU 0.5), of thoughts with a choice",
    "restated": "the box after the choice has the chosen candidate's numbers, of thoughts with a box there",
    "copied": "the answer's box has the chosen candidate's numbers, of readable answers after a choice",
}
"""Each step, in the order of a thought, and what is counted."""

_CANDIDATE = re.compile(r"(?:^|(?<=\.)\s+)(\d+)\s+")
_CHOICE = re.compile(r"(?:^|(?<=\.)\s+)So\s+(\d+)")
StepCounts = dict[str, tuple[float, int]]
"""What one sample contributes: for each step (right, of). Steps that do not apply are absent."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate as the model wrote it.

    `numbers` are its raw box coordinates, `marks` those the model claims to see, `fits` its verdict on the candidate,
    `each` its verdicts on the marks (None where there is none).
    """

    number: int
    numbers: tuple[float, ...]
    box: Box | None
    marks: tuple[str, ...]
    fits: bool | None = None
    each: tuple[bool | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """A parsed thought. Parts that could not be read are empty.

    `chosen` is the number after "So", `restated` the box after it, None where there is none. The marks of a thought
    `in_sentences` are read without articles and capitals.
    """

    name: str
    recalled: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    chosen: int | None
    restated: tuple[float, ...] | None = None
    in_sentences: bool = False

    def choice(self) -> Candidate | None:
        """The candidate that "So K" points at; None unless K was listed exactly once."""
        named = [c for c in self.candidates if c.number == self.chosen]
        return named[0] if len(named) == 1 else None


def read_thought(text: str | None, family: Family, frame: Frame) -> Thought:
    """Parse a thought. Text of another form gives empty parts, never an error."""
    whole = (text or "").strip()
    text, chosen, restated = _conclusion(whole, family)
    pieces = _CANDIDATE.split(text)
    name, _, marks = pieces[0].rpartition(":")
    candidates = [_candidate(int(n), body, family, frame) for n, body in zip(pieces[1::2], pieces[2::2], strict=True)]
    kept = tuple(candidate for candidate in candidates if candidate is not None)
    if not kept and (read := prose.read(whole)):
        return _of_prose(read, family, frame)
    return Thought(name.strip(), _marks(marks) if name else (), kept, chosen, restated)


def spans(text: str) -> list[tuple[str, int, int]]:
    """Return (name, start, end) of the parts of a whole answer, as places in its text.

    The parts are `recall` (up to the first candidate), `candidates`, `choice` (from "So" to the end of the thought) and
    `answer`; one that is missing is left out.
    """
    end = text.find("</think>")
    end = len(text) if end < 0 else end
    choice = max((found.start() for found in _CHOICE.finditer(text, 0, end)), default=end)
    opened = text.find("<think>")
    start = opened + len("<think>") if opened >= 0 else 0
    first = next((found.start() for found in _CANDIDATE.finditer(text, start, choice)), choice)
    parts = ("recall", 0, first), ("candidates", first, choice), ("choice", choice, end), ("answer", end, len(text))
    return [(name, begin, stop) for name, begin, stop in parts if begin < stop]


def judge_steps(sample: Sample, answer: Answer, family: Family, frame: Frame) -> StepCounts | None:
    """Judge every step of one answer about a place; None unless the marks of all things of the sample are known.

    `frame` is the one on which the family writes this image's boxes (`family.frame(sample.size, budget)`).
    """
    target = next((thing for thing in sample.things if thing.entity == sample.entity), None)
    if target is None or sample.task == "name" or not all(thing.marks for thing in sample.things):
        return None
    thought = read_thought(answer.thought, family, frame)
    asked = sample.asked  # a description asks by these marks, without a name
    head, sought = ("marks", asked) if asked else (sample.entity, target.marks)
    choice = thought.choice()
    as_read = prose.bare if thought.in_sentences else str
    recalled = set(thought.recalled) == set(map(as_read, sought))
    found = match(sample.things, thought.candidates)
    counts: StepCounts = {
        "form": _share([bool(thought.recalled and thought.candidates and choice)]),
        "recall": _share([recalled]),
        "recall words": (_shared_words(sought, thought.recalled), 1),
        "found": (len(found), len(sample.things)),
    }
    pairs = [(set(map(as_read, sample.things[k].marks)), set(thought.candidates[c].marks)) for k, c in found.items()]
    seen = [true == stated for true, stated in pairs]
    if found:
        counts["marks seen"] = _share(seen)
        counts["mark seen"] = sum(len(true & stated) for true, stated in pairs), sum(len(true) for true, _ in pairs)
    if thought.recalled:
        counts["name"] = _share([thought.name == head])
        counts |= _verdicts(thought)
    if choice is not None:
        right = choice.box is not None and iou(choice.box, target.box) >= FOUND_AT
        counts |= _comparison(thought, choice)
        counts["chosen"] = _share([right])
        if recalled and len(found) == len(sample.things) == len(thought.candidates) and all(seen):
            counts["compared given true"] = _share([right])
        if thought.restated is not None:
            counts["restated"] = _share([thought.restated == choice.numbers])
        if answer.problem is None and answer.numbers:
            counts["copied"] = _share([tuple(answer.numbers[-1]) == choice.numbers])
    return counts


def sum_steps(counts: Iterable[StepCounts]) -> list[dict[str, Any]]:
    """Sum the counts of many samples: a row for each step, in the order of a thought.

    A row has `name`, `right` out of the `of` cases to which the step applies, `meaning` and `share` (None: of no case).
    """
    counts, rows = list(counts), []
    for name, meaning in STEPS.items():
        found = [one[name] for one in counts if name in one]
        right, of = sum(right for right, _ in found), sum(of for _, of in found)
        rows.append({"name": name, "right": right, "of": of, "meaning": meaning, "share": right / of if of else None})
    return rows


def match(things: Sequence[Thing], candidates: Sequence[Candidate]) -> dict[int, int]:
    """Pair things with candidates one to one at IoU >= 0.5, the best overlaps first: {thing: candidate}."""
    overlaps = [
        (iou(thing.box, candidate.box), k, c)
        for k, thing in enumerate(things)
        for c, candidate in enumerate(candidates)
        if candidate.box is not None
    ]
    pairs: dict[int, int] = {}
    for overlap, k, c in sorted(overlaps, key=lambda row: (-row[0], row[1], row[2])):
        if overlap >= FOUND_AT and k not in pairs and c not in pairs.values():
            pairs[k] = c
    return pairs


def _share(right: Sequence[bool]) -> tuple[float, int]:
    return float(sum(right)), len(right)


def _verdicts(thought: Thought) -> StepCounts:
    """Compare the verdicts on marks and candidates, where there are any, with the model's own recall."""
    own = set(thought.recalled)
    marks = [(mark, fits) for c in thought.candidates for mark, fits in zip(c.marks, c.each, strict=True)]
    single = [(mark in own) == fits for mark, fits in marks if fits is not None]
    whole = [c.fits == (own <= set(c.marks)) for c in thought.candidates if c.fits is not None]
    return {name: _share(right) for name, right in (("mark judged", single), ("judged", whole)) if right}


def _comparison(thought: Thought, choice: Candidate) -> StepCounts:
    """Is the choice among the candidates that share most marks with the recall? Does not apply where all tie."""
    fits = [len(set(c.marks) & set(thought.recalled)) for c in thought.candidates]
    best = fits[thought.candidates.index(choice)] == max(fits)
    return {"compared": _share([best])} if min(fits) < max(fits) else {}


def _conclusion(text: str, family: Family) -> tuple[str, int | None, tuple[float, ...] | None]:
    """Split off the last `So K` or `So K BOX` of a thought; return the text before it, K, and the box."""
    for found in reversed(list(_CHOICE.finditer(text))):
        tail = text[found.end() :]
        boxes = family.read(tail)
        if len(boxes) == 1 or not tail.strip(" .\n"):
            return text[: found.start()], int(found[1]), tuple(boxes[0]) if boxes else None
        break
    return text, None, None


def _of_prose(read: prose.Prose, family: Family, frame: Frame) -> Thought:
    """Take over a thought in sentences; a conclusion on several boxes, or one not listed, is not a choice."""
    candidates = []
    for box, marks in read.candidates:
        if len(numbers := family.read(box)) == 1:
            coordinates = tuple(numbers[0])
            number, each = len(candidates) + 1, (None,) * len(marks)
            candidates.append(Candidate(number, coordinates, _box(coordinates, frame), marks, each=each))
    ends = [tuple(numbers) for numbers in family.read(read.rest)]
    chosen = [one.number for one in candidates if ends == [one.numbers]]
    end = ends[0] if len(ends) == 1 else None
    return Thought(read.name, read.marks, tuple(candidates), chosen[0] if chosen else None, end, in_sentences=True)


def _box(numbers: Sequence[float], frame: Frame) -> Box | None:
    """Return the box; None for numbers that are none: model text, and what finds nothing is counted by `found`."""
    try:
        return Box.from_xyxy(numbers, frame)
    except BoxError:
        return None


def _candidate(number: int, body: str, family: Family, frame: Frame) -> Candidate | None:
    """Read `BOX: mark, mark.`, with or without verdicts; None without a box before the last colon."""
    head, _, stated = body.rpartition(":")
    boxes = family.read(head)
    if not boxes:
        return None
    parts, fits = _marks(stated), None
    if parts and parts[-1] in VERDICTS:
        fits, parts = VERDICTS[parts[-1]], parts[:-1]
    marks, each = [], []
    for part in parts:
        mark, _, verdict = part.rpartition(" ")
        marks.append(mark if mark and verdict in VERDICTS else part)
        each.append(VERDICTS.get(verdict) if mark else None)
    return Candidate(number, tuple(boxes[0]), _box(boxes[0], frame), tuple(marks), fits, tuple(each))


def _marks(text: str) -> tuple[str, ...]:
    return tuple(mark for part in text.strip().rstrip(".").split(",") if (mark := part.strip()))


def _shared_words(true: Sequence[str], stated: Sequence[str]) -> float:
    """Return the share of the words of `true` (with repetition) that `stated` contains, 0..1."""
    wanted = Counter(" ".join(true).split())
    return (wanted & Counter(" ".join(stated).split())).total() / wanted.total()
