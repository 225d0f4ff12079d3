"""Model text to an `Answer`: what was thought, what was answered, which box.

The answer is the text of the single `<answer>...</answer>` outside of the thought, and its box is the LAST box written
there (all of them, where every instance was asked for); numbers from 0 to 1 with a fraction are no box. An answer
without any box may say that the thing is absent (`none`, `[]`, `It is not in this picture.`). Boxes elsewhere never
count, nothing is clamped, and text that breaks the rule is a parse failure with a name (`PROBLEMS`), never raised.
Empty pairs and tags inside a thought are ignored.
"""

import re
from dataclasses import dataclass, field

from mllm.boxes import Box, Frame
from mllm.errors import BoxError
from mllm.models.families import Family
from mllm.records import Answer, Sample

NO_ANSWER = "no answer tag"
EMPTY = "empty answer"
OPEN = "answer tag not closed"
SEVERAL = "several answer tags"
NO_BOX = "no box in the answer"
OUTSIDE = "box outside the frame"
SHARES = "box in shares of the image"
INVERTED = "box inverted or empty"
PROBLEMS = (NO_ANSWER, EMPTY, OPEN, SEVERAL, NO_BOX, SHARES, OUTSIDE, INVERTED)
"""Every way in which text cannot be read, in the order in which they are looked for."""

_TAG = re.compile(r"<(/?)(think|answer)>")
# The whole answer must be one of these; every repetition is bounded and looks at each place once.
_NAMES = r"[^\n.,;:!?]{0,120}+"
_ABSENT = re.compile(
    r"(?:none|nothing|null|absent|\[\s{0,16}+\]"
    r"|none of (?:them|these|those|the things|the candidates)"
    r"|not (?:present|visible|found|there|here)"
    r"|(?:(?:it|this|that) is )?not (?:shown |visible |present )?in (?:this|the) (?:picture|image|photo)"
    rf"|(?:there (?:is|are) )?no such {_NAMES}"
    rf"|there (?:is|are) no {_NAMES})[.!]?+",
    re.IGNORECASE,
)
# An empty pair is what a prompt shows ("Answer in <answer></answer>."), or an answer that says nothing.
_EMPTY_PAIR = re.compile(r"<(think|answer)>\s{0,16}+</\1>")
_EMPTY_THOUGHT = re.compile(r"\A\s{0,16}+<think>\s{0,16}+</think>\s{0,16}+")


@dataclass(slots=True)
class _Parts:
    """What the tags of a text enclose. `several` and `open` tell what is wrong with the answer tags."""

    thoughts: list[str] = field(default_factory=list)
    answer: str | None = None
    several: bool = False
    open: bool = False


def whole(opening: str, text: str) -> str:
    """Put what the chat template wrote in the model's place, `<think>` or nothing, back before text that lacks it.

    A thought that the template opens and the model leaves empty, to answer at once, is dropped.
    """
    if not opening:
        return text
    text = text if text.lstrip().startswith(opening) else opening + text
    return _EMPTY_THOUGHT.sub("", text)


def parse(text: str, family: Family, frame: Frame) -> Answer:
    """Read model text. Never raises, and takes time linear in the length of the text.

    `frame` is what the family writes numbers on (`family.frame(sample.size, budget)`). The answer's `boxes` are all
    valid ones if its last box is valid, in the order in which they were written; `numbers` holds all as written.
    """
    parts = _split(_EMPTY_PAIR.sub("", text))
    numbers = tuple(tuple(box) for box in family.read(parts.answer or ""))
    boxes, problem = _judge(parts, numbers, frame)
    absent = problem == NO_BOX and _ABSENT.fullmatch((parts.answer or "").strip()) is not None
    problem = None if absent else problem
    if problem == NO_ANSWER:
        ends = text.rfind("</think>")  # an empty pair inside the thought is a quotation
        empty = any(pair[1] == "answer" and pair.start() > ends for pair in _EMPTY_PAIR.finditer(text))
        problem = EMPTY if empty else problem
    thought = "\n".join(parts.thoughts) if parts.thoughts else None
    return Answer(thought, parts.answer, boxes, numbers, problem, absent)


def write_thought(sample: Sample, family: Family, frame: Frame) -> str | None:
    """Return a sample's thought with each `<obj:K>` written as the family's own box text, None where it has none."""
    return None if sample.thought is None else family.write_thought(sample.thought, sample.things, frame)


def _judge(parts: _Parts, numbers: tuple[tuple[float, ...], ...], frame: Frame) -> tuple[tuple[Box, ...], str | None]:
    """Return the valid boxes and what is wrong with the answer, None where nothing is. The last box decides."""
    if parts.several:
        return (), SEVERAL
    if parts.answer is None:
        return (), NO_ANSWER
    if parts.open:
        return (), OPEN
    if not numbers:
        return (), NO_BOX if parts.answer.strip() else EMPTY
    boxes = [_box(four, frame) for four in numbers]
    if boxes[-1] is None:
        if _are_shares(numbers[-1]):
            return (), SHARES
        x1, y1, x2, y2 = numbers[-1]
        return (), INVERTED if x1 >= x2 or y1 >= y2 else OUTSIDE
    return tuple(box for box in boxes if box is not None), None


def _box(numbers: tuple[float, ...], frame: Frame) -> Box | None:
    if _are_shares(numbers):
        return None
    try:
        return Box.from_xyxy(numbers, frame)
    except BoxError:  # four finite numbers: inverted, empty or outside the frame, which `_judge` tells apart
        return None


def _are_shares(numbers: tuple[float, ...]) -> bool:
    """Whether numbers are shares of the image, 0..1, which no family writes: as thousandths they would be a dot."""
    return all(0 <= one <= 1 for one in numbers) and any(one != int(one) for one in numbers)


def _split(text: str) -> _Parts:
    """Walk over the tags once, from left to right."""
    parts = _Parts()
    closes = text.rfind("</think>")
    thinking_from: int | None = None
    answering_from: int | None = None
    for tag in _TAG.finditer(text):
        closing, name = tag[1] == "/", tag[2]
        if thinking_from is not None:
            if name == "think" and closing:
                parts.thoughts.append(text[thinking_from : tag.start()].strip())
                thinking_from = None
                continue
            if name == "think":
                if not text[thinking_from : tag.start()].strip():
                    thinking_from = tag.end()  # the model repeats the tag that the prompt had opened
                continue
            if closing or closes > tag.start():
                continue  # words of the thought
            # A thought that is never closed ends where the answer begins.
            parts.thoughts.append(text[thinking_from : tag.start()].strip())
            thinking_from = None
        if name == "think":
            if not closing and answering_from is None:
                thinking_from = tag.end()
        elif closing and answering_from is not None:
            parts.several |= parts.answer is not None
            parts.answer = text[answering_from : tag.start()]
            answering_from = None
        elif not closing:
            parts.several |= answering_from is not None
            answering_from = tag.end()
    if thinking_from is not None:
        parts.thoughts.append(text[thinking_from:].strip())
    if answering_from is not None:
        parts.several |= parts.answer is not None
        parts.answer, parts.open = text[answering_from:], True
    return parts
