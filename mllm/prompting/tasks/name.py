"""Say what a thing is: the answer is its name, read tolerantly and graded by how right and how specific it is.

What is correct but less specific earns a part, and what is specific and wrong earns nothing, as SpeciaRL grades
(arXiv 2603.03197); there a language model judges, here the names that are known do.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, get_args

from mllm.boxes import Frame
from mllm.errors import RecordError
from mllm.knowledge.names import normalize_name
from mllm.models.families import Family
from mllm.prompting import answers
from mllm.prompting.questions import lettered
from mllm.prompting.tasks import BaseTask, need_thought
from mllm.prompting.tasks.quiz import LETTERS, read_choice
from mllm.records import Answer, Sample

Grade = Literal["species", "genus", "wrong", "several", "unread"]
"""`species`: the right name; `genus`: its genus alone; `wrong`: anything else; `several`: more than one name, or one
beside "or"; `unread`: no answer, or, where names are listed, none of them."""
GRADES: tuple[Grade, ...] = get_args(Grade)
PARTLY = 0.5
"""Score of an answer that names the genus alone."""
_BOXLESS = (answers.NO_BOX, answers.SHARES, answers.OUTSIDE, answers.INVERTED)
_DENIAL = re.compile(r"\b(?:not|no|never|neither|nor|isnt)(?: (?:look|looks|like|be|of|it|is|a|an|the))*$")
_OR_BEFORE, _OR_AFTER = re.compile(r"\b(?:or|either)(?: (?:a|an|the))?$"), re.compile(r"or\b")
_FRAME = frozenset(
    "a an the this that these it its is are be looks look like to appears probably likely perhaps maybe some sort kind "
    "type species sp spp genus of in on at i think see shows shown picture image photo box thing answer one".split()
)
"""Words that may stand around a genus without making the answer more specific."""


def spellings(names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the name for each normalized spelling of it; `names` holds the synonyms of each."""
    pairs = ((normalize_name(one), name) for name, also in names.items() for one in (name, *also))
    return {spelling: name for spelling, name in pairs if spelling}


def mentions(text: str, known: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield each name in a text with the words before and after it, in its order; of names at one place the longest.

    `known` is as `spellings` returns it. Names that are denied ("not a wren") are left out.
    """
    words = normalize_name(text).split()
    longest = max((spelling.count(" ") + 1 for spelling in known), default=0)
    place = 0
    while place < len(words):
        ends = range(min(place + longest, len(words)), place, -1)
        end = next((end for end in ends if " ".join(words[place:end]) in known), None)
        if end is None:
            place += 1
            continue
        before = " ".join(words[:place])
        if not _DENIAL.search(before):
            yield known[" ".join(words[place:end])], before, " ".join(words[end:])
        place = end


def named(answer: Answer, sample: Sample) -> str | None:
    """Return the one name among those known of a sample that an answer gives; None for none, or for several.

    Known are the right name with its synonyms, and the `options`. After a question with letters, a letter counts.
    """
    text = (answer.answer or "") if answer.problem is None else ""
    if lettered(sample.question) and (choice := read_choice(text, sample.options)) is not None:
        return sample.options[choice]
    return named_in(text, sample)


def named_in(text: str, sample: Sample) -> str | None:
    """Return the one name among those known of a sample that a text gives; None for none, or for several."""
    found = {name for name, _, _ in mentions(text, _known(sample))}
    return found.pop() if len(found) == 1 else None


def grade(answer: Answer, sample: Sample) -> Grade:
    """Grade an answer: the one function of rewards and benchmarks."""
    text = (answer.answer or "") if answer.problem is None else ""
    words = normalize_name(text).split()
    if not words:
        return "unread"
    name, found = named(answer, sample), list(mentions(text, _known(sample)))
    if name is None and found:
        return "several"
    if any(_OR_BEFORE.search(before) or _OR_AFTER.match(after) for _, before, after in found):
        return "several"
    if name is not None:
        return "species" if name == sample.entity else "wrong"
    if sample.genus and _says_genus_alone(words, sample):
        return "genus"
    return "unread" if lettered(sample.question) else "wrong"


def has_genus(answer: Answer, sample: Sample, genera: Mapping[str, str]) -> bool:
    """Whether an answer's genus is right, whatever its species; `genera` are those of other names, as far as known."""
    found = grade(answer, sample)
    if found in ("species", "genus"):
        return True
    if found != "wrong" or not sample.genus:
        return False
    genus, name = normalize_name(sample.genus), named(answer, sample)
    if name is not None and name in genera:
        return normalize_name(genera[name]) == genus
    return any(mentions(answer.answer or "", {genus: sample.genus}))


def _known(sample: Sample) -> dict[str, str]:
    return spellings({option: () for option in sample.options} | {sample.entity: sample.synonyms})


def _says_genus_alone(words: list[str], sample: Sample) -> bool:
    """Whether nothing but the genus is named: `a Talo`, `Talo sp.`; `Talo mer` names a species."""
    genus = normalize_name(sample.genus or "")
    before, found, after = f" {' '.join(words)} ".partition(f" {genus} ")
    noun = normalize_name(sample.domain).split()
    return bool(found) and {*before.split(), *after.split()} <= {*_FRAME, *noun}


class Task(BaseTask):
    """`Sample.entity` is the answer; `options` are the names to choose from, or those that an open answer may name."""

    has_boxes = False

    def check(self, sample: Sample, style: str, *, target: bool = True) -> None:
        """Refuse a sample without a name, with options that lack it, or without the thought that its style needs."""
        if not sample.entity.strip():
            raise RecordError(f"sample {sample.id}: field entity: the name of the thing is needed")
        if sample.options and sample.entity not in sample.options:
            raise RecordError(
                f"sample {sample.id}: field options: {sample.entity!r}, the right name, is not among them"
            )
        if style == "think" and target:
            need_thought(sample)

    def _target(self, sample: Sample, style: str, family: Family, frame: Frame) -> str:
        letter = f"{LETTERS[sample.options.index(sample.entity)]}. " if lettered(sample.question) else ""
        answer = f"<answer>{letter}{sample.entity}</answer>"
        if style == "direct":
            return answer
        return f"<think>{family.write_thought(sample.thought or '', sample.things, frame)}</think>{answer}"

    def read(self, text: str, opening: str, family: Family, frame: Frame) -> tuple[str, Answer]:
        """Read model text: the answer is what stands in its tags, or the whole text where it holds no tags at all."""
        text, answer = super().read(text, opening, family, frame)
        if answer.problem in _BOXLESS:
            answer = replace(answer, problem=None)
        elif answer.problem == answers.NO_ANSWER and answer.thought is None and text.strip() and "<" not in text:
            answer = replace(answer, answer=text.strip(), problem=None)
        return text, replace(answer, boxes=(), numbers=(), absent=False)

    def score(self, answer: Answer, sample: Sample) -> float:
        """1 for the right name, `PARTLY` for its genus alone, otherwise 0."""
        return {"species": 1.0, "genus": PARTLY}.get(grade(answer, sample), 0.0)

    def is_right(self, answer: Answer, sample: Sample) -> bool:
        """Whether the name is right."""
        return grade(answer, sample) == "species"
