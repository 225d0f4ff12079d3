"""Where reasoning breaks: each link of a thought measured on its own, with its own denominator.

A thought in the form of the pocket oracle runs: recall the marks of the named thing; go through the candidates, each
with a box and the marks seen on it; choose. After boxes were written in a model family's own form it reads, e.g.

    Talo ruvi: round, red, striped, blue cap. 1 (12,34),(56,78): round fits, red fits, plain not, blue cap fits, not.
    2 ..., fits. So 2 (...).

The box after the choice may be left out; the final answer repeats it. One number at the end cannot tell a model that
forgot the species from one that cannot see, cannot compare, or cannot copy; here each step is judged given the steps
before it. "Right" means what is true of the image (`Thing.marks`, `Thing.box`), except for the comparison, which is
judged on the model's own words: was the chosen candidate the one whose stated marks fit the stated recall best?
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mllm.boxes import Box, Frame, iou
from mllm.errors import BoxError
from mllm.models.families import Family
from mllm.records import Answer, Sample, Thing

VERDICTS = {"fits": True, "not": False}
"""The word behind a mark, and again behind all of a candidate's marks, that says whether they are the ones recalled; a
thought may do without."""
FOUND_AT = 0.5 - 1e-9
"""IoU from which a candidate's box counts as having found a thing (0.5; whole numbers may tie a hair below it)."""

_CANDIDATE = re.compile(r"(?:^|(?<=\.)\s+)(\d+)\s+")
_CHOICE = re.compile(r"(?:^|(?<=\.)\s+)So\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate as the model wrote it: its number, raw box numbers, the marks it says it sees, its verdict, and the
    verdict on each mark (None where there is none)."""

    number: int
    numbers: tuple[float, ...]
    box: Box | None
    marks: tuple[str, ...]
    fits: bool | None = None
    each: tuple[bool | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """A thought taken apart. Parts that could not be read are empty.

    `chosen` is the number after "So", `restated` the box written behind it, None where there is none.
    """

    name: str
    recalled: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    chosen: int | None
    restated: tuple[float, ...] | None = None

    def choice(self) -> Candidate | None:
        """The candidate that "So K" points at; None where K was not listed exactly once."""
        named = [c for c in self.candidates if c.number == self.chosen]
        return named[0] if len(named) == 1 else None


@dataclass(frozen=True, slots=True)
class StepScore:
    """`right` out of `of`: how often one link held among the cases where it could be asked."""

    name: str
    right: float
    of: int
    meaning: str

    @property
    def share(self) -> float | None:
        """right / of; None where the link could never be asked."""
        return self.right / self.of if self.of else None

    def as_dict(self) -> dict[str, float | int | str | None]:
        """Plain values for a json file."""
        return {"name": self.name, "right": self.right, "of": self.of, "share": self.share, "meaning": self.meaning}


STEPS = {
    "form": "thoughts that could be taken apart (recall, candidates, choice), of all samples with known marks",
    "name": "the name asked for stands at the head of the thought, of thoughts with a recall",
    "recall": "every mark recalled and none invented, of all samples with known marks",
    "recall words": "words of the true marks that were recalled, averaged over all samples with known marks",
    "found": "things of the image that a candidate's box found at IoU 0.5, of all things",
    "marks seen": "every mark seen right, of the things found",
    "mark seen": "single marks seen right, of all marks of the things found",
    "mark judged": "the verdict on a single mark agrees with the model's own recall, of marks with a verdict",
    "judged": "the verdict beside a candidate agrees with its own marks and recall, of candidates with a verdict",
    "compared": "the choice fits the model's own recall best, of thoughts whose own words prefer some candidates",
    "compared given true": "the choice is the thing asked for, of thoughts with recall, found and marks seen all right",
    "chosen": "the choice is the thing asked for (IoU 0.5), of thoughts with a choice",
    "restated": "the box behind the choice is the chosen candidate's, number for number, of those that write one there",
    "copied": "the answer's box is the chosen candidate's, number for number, of readable answers after a choice",
}


@dataclass(slots=True)
class StepCounts:
    """What one sample contributes: for each link (right, of). Links that could not be asked are absent."""

    counts: dict[str, tuple[float, int]] = field(default_factory=dict)

    def count(self, step: str, right: float, of: int = 1) -> None:
        """Record that a link held `right` times out of `of`."""
        self.counts[step] = (float(right), of)


def read_thought(text: str | None, family: Family, frame: Frame) -> Thought:
    """Take a thought apart. Rubbish gives empty parts, never an error."""
    text = (text or "").strip()
    text, chosen, restated = _conclusion(text, family)
    pieces = _CANDIDATE.split(text)
    name, _, marks = pieces[0].rpartition(":")
    candidates = [_candidate(int(n), body, family, frame) for n, body in zip(pieces[1::2], pieces[2::2], strict=True)]
    return Thought(
        name.strip(), _marks(marks) if name else (), tuple(c for c in candidates if c is not None), chosen, restated
    )


def judge_steps(sample: Sample, answer: Answer, family: Family, frame: Frame) -> StepCounts | None:
    """Judge every link of one answer; None where the sample does not know the marks of its things.

    `frame` is the one the family writes this image's boxes on (`family.frame(sample.size, budget)`).
    """
    target = next((thing for thing in sample.things if thing.entity == sample.entity), None)
    if target is None or not all(thing.marks for thing in sample.things):
        return None
    thought, steps = read_thought(answer.thought, family, frame), StepCounts()
    asked = tuple(sample.provenance.get("asked", ()))  # a description asks by these, and names nothing
    head, sought = ("marks", asked) if asked else (sample.entity, target.marks)
    choice = thought.choice()
    steps.count("form", bool(thought.recalled and thought.candidates and choice))
    if thought.recalled:
        steps.count("name", thought.name == head)
    recalled = set(thought.recalled) == set(sought)
    steps.count("recall", recalled)
    steps.count("recall words", _shared_words(sought, thought.recalled))
    found = match(sample.things, thought.candidates)
    steps.count("found", len(found), len(sample.things))
    seen = [set(sample.things[k].marks) == set(thought.candidates[c].marks) for k, c in found.items()]
    if found:
        steps.count("marks seen", sum(seen), len(found))
        single = [_single_marks(sample.things[k], thought.candidates[c]) for k, c in found.items()]
        steps.count("mark seen", sum(right for right, _ in single), sum(of for _, of in single))
    single = [
        (mark in thought.recalled) == fits
        for c in thought.candidates
        for mark, fits in zip(c.marks, c.each, strict=True)
        if fits is not None
    ]
    if single and thought.recalled:
        steps.count("mark judged", sum(single), len(single))
    verdicts = [c for c in thought.candidates if c.fits is not None]
    if verdicts and thought.recalled:
        own = set(thought.recalled)
        steps.count("judged", sum(c.fits == (own <= set(c.marks)) for c in verdicts), len(verdicts))
    if choice is not None:
        right = choice.box is not None and iou(choice.box, target.box) >= FOUND_AT
        _compare(steps, thought, choice)
        steps.count("chosen", right)
        if recalled and len(found) == len(sample.things) == len(thought.candidates) and all(seen):
            steps.count("compared given true", right)
        if thought.restated is not None:
            steps.count("restated", thought.restated == choice.numbers)
        if answer.problem is None and answer.numbers:
            steps.count("copied", tuple(answer.numbers[-1]) == choice.numbers)
    return steps


def sum_steps(counts: Iterable[StepCounts]) -> list[StepScore]:
    """Sum the counts of many samples: one score for each step, in the order in which a thought runs."""
    counts, rows = list(counts), []
    for name, meaning in STEPS.items():
        found = [one.counts[name] for one in counts if name in one.counts]
        rows.append(StepScore(name, sum(right for right, _ in found), sum(of for _, of in found), meaning))
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


def _compare(steps: StepCounts, thought: Thought, choice: Candidate) -> None:
    """Is the choice among the candidates that share most marks with the recall? Not asked where all tie."""
    fits = [len(set(c.marks) & set(thought.recalled)) for c in thought.candidates]
    if min(fits) < max(fits):
        steps.count("compared", fits[thought.candidates.index(choice)] == max(fits))


def _conclusion(text: str, family: Family) -> tuple[str, int | None, tuple[float, ...] | None]:
    """Cut the last `So K` or `So K BOX` off the end of a thought: what is before it, K, and the box."""
    for found in reversed(list(_CHOICE.finditer(text))):
        tail = text[found.end() :]
        boxes = family.read(tail)
        if len(boxes) == 1 or not tail.strip(" .\n"):
            return text[: found.start()], int(found[1]), tuple(boxes[0]) if boxes else None
        break
    return text, None, None


def _candidate(number: int, body: str, family: Family, frame: Frame) -> Candidate | None:
    """Read `BOX: mark, mark.`, with or without verdicts; None where no box stands before the last colon."""
    head, _, said = body.rpartition(":")
    boxes = family.read(head)
    if not boxes:
        return None
    try:
        box = Box.from_xyxy(boxes[0], frame)
    except BoxError:  # model text: four numbers that are no box find nothing, which is what `found` counts
        box = None
    parts, fits = _marks(said), None
    if parts and parts[-1] in VERDICTS:
        fits, parts = VERDICTS[parts[-1]], parts[:-1]
    marks, each = [], []
    for part in parts:
        mark, _, verdict = part.rpartition(" ")
        marks.append(mark if mark and verdict in VERDICTS else part)
        each.append(VERDICTS.get(verdict) if mark else None)
    return Candidate(number, tuple(boxes[0]), box, tuple(marks), fits, tuple(each))


def _marks(text: str) -> tuple[str, ...]:
    """Split `a, b, c.` into marks."""
    return tuple(mark for part in text.strip().rstrip(".").split(",") if (mark := part.strip()))


def _shared_words(true: Sequence[str], said: Sequence[str]) -> float:
    """Share of the words of `true` (with repetition) that `said` holds, 0..1."""
    want, have = " ".join(true).split(), " ".join(said).split()
    right = 0
    for word in want:
        if word in have:
            have.remove(word)
            right += 1
    return right / len(want)


def _single_marks(thing: Thing, candidate: Candidate) -> tuple[int, int]:
    """Marks of a found thing that were stated, and how many it has."""
    return len(set(thing.marks) & set(candidate.marks)), len(set(thing.marks))
