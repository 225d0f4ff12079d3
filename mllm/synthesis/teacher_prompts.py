"""The prompts of teachers, word for word. `mllm.synthesis.teacher_parsing` parses the replies.

A changed word makes another request, so cached replies to the old wording are not used for it.
"""

from collections.abc import Sequence

from mllm.boxes import Box, Frame
from mllm.knowledge import domains
from mllm.knowledge.cards import word_overlap
from mllm.models.families import Family
from mllm.records import REFERENCE
from mllm.synthesis.capabilities import ReasoningRequest
from mllm.synthesis.composites import SCENE
from mllm.synthesis.thoughts import targets

NOTHING = "unknown"
"""Reply of a teacher that knows no marks."""
NOWHERE = "none"
"""Reply of a teacher that does not find a thing."""
MOST_MARKS = 8

REASON = """\
In this picture there are {count} {plural}. From left to right they are:
{candidates}
{scale}

A reader asks: "{question}" The answer is {answer}.

Write what an expert would think who sees only the picture and the question and finds the answer by looking. Running \
text without headings, lists, tags or markup, in four steps:
- recall the marks that set {entity} apart;
- look at every candidate from left to right, each time beginning with its box, copied digit for digit from above, and \
say how these marks look on it; where one is hidden, say that it is hidden;
- compare: which marks decide, and which candidates do they rule out;
- conclude with one sentence that {ending}.
Claim nothing that can neither be seen nor is known. Nothing in your text may show that you were given names, boxes or \
the answer."""

NAME = """\
In this picture there is one {noun} to name{place}: {entity}.{known} Easily taken for it: {rivals}.
{scale}

A reader asks: "{question}" The answer is {entity}.

Write what an expert would think who sees only the picture and the question and finds the answer by looking. Running \
text without headings, lists, tags or markup, in four steps:
- look: say which marks can be seen{copied}; where one is hidden, say that it is hidden;
- recall the marks of the kinds that come into question, each in a sentence that names it;
- compare: which marks decide, and which kinds do they rule out;
- conclude with one sentence that names {entity} and no other kind.
Claim nothing that can neither be seen nor is known. Nothing in your text may show that you were given boxes, marks or \
the answer."""

MARKS = """\
How does one tell {entity} (a kind of {noun}) from its look-alikes? Write at most {most} field marks that a photo can \
show, the most telling first, one on each line and nothing else. A mark is a part and its look in a few words, such as \
"white bar on the wing". If you do not know {entity}, write only: {nothing}"""

DIFFERENCES = """\
What tells {entity} from {other} (two kinds of {noun}) on a photo? Write one difference on each line and nothing else: \
how {entity} looks, then the sign |, then how {other} looks there, each in a few words. If you do not know both of \
them, write only: {nothing}"""

SEES = """\
Look at the {noun} in this picture. For each of these marks say whether it can be seen:
{marks}
Answer one mark on each line: its number, a colon, then yes (it can be seen), no (it can be seen that it is not so) or \
unclear (hidden, cut off, too small or too dark). Nothing else."""

DESCRIBE = """\
Describe the {noun} in this picture in one to three sentences: its parts, colours, patterns and shapes, and whatever \
would help to tell it from others of its kind. Do not name the kind, and say nothing that cannot be seen."""

POINT = """\
Find every {entity} in this picture ({plural}; there may be look-alikes). {scale} Write the box of each on a line of \
its own and nothing else. If there is none, write only: {nowhere}"""

BLEND = """\
These captions were written for one and the same picture:
{captions}
Write one caption that holds every detail of all of them and adds none. Where two of them disagree, leave that detail \
out. Write only the caption."""

EXPAND = """\
Caption of a picture: {caption}
A longer description of the same picture: {description}
Rewrite the caption so that it also holds the description's details, in as few words as will do. Where the two \
disagree, the caption is right. Write only the new caption."""


def reasoning(request: ReasoningRequest, family: Family, frame: Frame) -> str:
    """Ask for a thought; the teacher writes boxes in `frame`."""
    sample, name, chosen = request.sample, request.sample.entity, targets(request.sample)
    if sample.task == "name":
        return _name(request, next(thing.box for thing in sample.things if thing.entity == name), family, frame)
    order = sorted(range(len(sample.things)), key=lambda k: sample.things[k].box.center[0])
    candidates = []
    for thing in (sample.things[k] for k in order):
        card = request.cards[thing.entity] if thing.entity in request.cards else ()
        known = f" (known marks: {'; '.join(card)})" if card else ""
        candidates.append(f"{thing.entity} at {family.mention(thing.box, frame)}{known}")
    numbers = ", ".join(str(number) for number, k in enumerate(order, 1) if k in chosen)
    if len(chosen) > 1:
        answer, ending = f"numbers {numbers}, every {name}", f"holds the boxes of every {name} and no other box"
    elif chosen:
        answer, ending = f"number {numbers}, {name}", f"holds the box of {name} and no other box"
    else:
        answer, ending = f"that none of them is {name}", f"says that {name} is not among them and holds no box"
    values = {"candidates": numbered(candidates), "question": sample.question, "entity": name, "answer": answer}
    if sample.layout == SCENE:
        values["plural"] = "things"  # of several domains
    return fill(REASON, sample.domain, count=len(order), scale=scale(frame), ending=ending, **values)


def _name(request: ReasoningRequest, box: Box, family: Family, frame: Frame) -> str:
    """Ask for a thought that names the thing at `box`, or in the whole picture."""
    sample, boxed = request.sample, REFERENCE.search(request.sample.question) is not None

    def marks(name: str) -> str:
        card = request.cards[name] if name in request.cards else ()
        return f" (known marks: {'; '.join(card)})" if card else ""

    rivals = [name for name in sample.options if name != sample.entity]
    rivals.sort(key=lambda name: (-word_overlap([marks(sample.entity)], [marks(name)]), name))
    written = family.mention(box, frame)
    values = {
        "place": f" at {written}" if boxed else "",
        "copied": f", beginning with its box, copied digit for digit: {written}" if boxed else "; write no box",
        "question": REFERENCE.sub(lambda _: written, sample.question),
        "entity": sample.entity,
        "known": f" Known marks: {'; '.join(request.cards[sample.entity])}." if sample.entity in request.cards else "",
        "rivals": ", ".join(f"{name}{marks(name)}" for name in rivals[:3]) or "nothing that is known",
        "scale": scale(frame) if boxed else "",
    }
    return fill(NAME, sample.domain, **values)


def fill(template: str, domain: str, **values: object) -> str:
    """Fill in one of the prompts above; `domain` gives the words for the things in the image."""
    words = domains.load(domain)
    fixed = {"noun": words.noun, "plural": words.plural, "most": MOST_MARKS, "nothing": NOTHING, "nowhere": NOWHERE}
    return template.format(**{**fixed, **values})


def scale(frame: Frame) -> str:
    """Explain how boxes are written."""
    return (
        f"A box is [left, top, right, bottom] in whole numbers, from 0 to {frame.width:g} across and "
        f"from 0 to {frame.height:g} down."
    )


def numbered(lines: Sequence[str]) -> str:
    """Number lines from 1."""
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
