"""Parse replies of prompted teachers: lenient about form (bullets, tables, tags), strict about content.

A reply that cannot be parsed raises `TeacherError` with a short reason that can be counted; nothing is guessed.
"""

import re
from collections.abc import Sequence

from mllm.boxes import Box, Frame, iou
from mllm.errors import BoxError
from mllm.knowledge.cards import normalize_name
from mllm.models.box_notation import find_boxes
from mllm.models.families import Family
from mllm.records import REFERENCE, Sample
from mllm.synthesis.capabilities import TeacherError
from mllm.synthesis.teacher_prompts import NOTHING, NOWHERE

SAME_BOX = 0.5
"""Least IoU at which a box in a thought refers to a candidate; a box copied digit for digit is far above."""
LONGEST_MARK = 100
"""Maximum letters of a mark; longer lines are prose, not a list."""

_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*•–]+|\(?\d{1,2}[.):])\s+")
_VERDICT = re.compile(r"^\W*(\d{1,3})\W+(?:.*\W)?(yes|no|unclear)\W*$", re.IGNORECASE)
_VERDICTS = {"yes": True, "no": False, "unclear": None}
_WRAPPED = (
    (re.compile(r'\{\s*"bbox_2d"\s*:\s*(<obj:\d+>)\s*(?:,\s*"label"\s*:\s*"[^"]{0,200}"\s*)?\}'), r"\1"),
    (re.compile(r"<\|box_start\|>\s*(<obj:\d+>)\s*<\|box_end\|>"), r"\1"),
    (re.compile(r"<box>\s*(<obj:\d+>)\s*</box>"), r"\1"),
    (re.compile(r"<\|object_ref_start\|>(.{0,200}?)<\|object_ref_end\|>"), r"\1"),
)
"""What model families write around a box; it is removed."""


def plain(text: str) -> str:
    """Return a reply without leading <think> text, code fences and outer space; an empty one is an error."""
    if text.lstrip().startswith("<think>") and "</think>" not in text:
        raise TeacherError("unreadable reply", "it thinks and does not answer")
    if not (reply := _FENCE.sub("", _THINKING.sub("", text)).strip()):
        raise TeacherError("unreadable reply", "it is empty")
    return reply


def prose(text: str) -> str:
    """Return running text on one line, without quotation marks around the whole."""
    reply = " ".join(plain(text).split())
    if len(reply) > 2 and reply[0] == reply[-1] == '"' and '"' not in reply[1:-1]:
        reply = reply[1:-1].strip()
    return reply


def thought(text: str, sample: Sample, frame: Frame) -> str:
    """Return a thought with `<obj:K>` in place of each candidate's box; raises TeacherError for any other box."""
    reply = plain(text)
    found = find_boxes(reply)
    if not found and (sample.task != "name" or REFERENCE.search(sample.question)):
        raise TeacherError("unreadable reply", "no box in the reasoning")
    parts, last = [], 0
    for start, end, numbers in found:
        parts += [reply[last:start], f"<obj:{_candidate(numbers, sample, frame)}>"]
        last = end
    reply = "".join([*parts, reply[last:]])
    for pattern, kept in _WRAPPED:
        reply = pattern.sub(kept, reply)
    return re.sub(r"[ \t]*\n\s*", "\n", reply)


def marks(text: str) -> tuple[str, ...]:
    """Return the marks of a list, in its order, each once; empty if the teacher knows none."""
    if _is_word(lines := _lines(text), NOTHING):
        return ()
    found = [line for line in lines if not line.endswith(":")]  # "Here are the marks:"
    if not found:
        raise TeacherError("unreadable reply", "no list of marks")
    if longest := [line for line in found if len(line) > LONGEST_MARK]:
        raise TeacherError("unreadable reply", f"prose instead of a list of marks: {longest[0][:60]!r}")
    once: dict[str, str] = {}
    for line in found:
        once.setdefault(normalize_name(line), line)
    return tuple(once.values())


def differences(text: str, entity: str, other: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a list `this | that`; empty if the teacher knows none. Lines without | are skipped."""
    if _is_word(lines := _lines(text), NOTHING):
        return ()
    cells = [[cell.strip().rstrip(".") for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    head = [normalize_name(entity), normalize_name(other)]
    pairs = [
        (row[0], row[1])
        for row in cells
        if len(row) == 2 and all(row) and not set("".join(row)) <= set("-: ") and [*map(normalize_name, row)] != head
    ]
    if not pairs:
        raise TeacherError("unreadable reply", "no line of the form `this | that`")
    return tuple(dict.fromkeys(pairs))


def verdicts(text: str, count: int) -> tuple[bool | None, ...]:
    """Return the verdict on each of `count` numbered marks; each must have exactly one."""
    found: dict[int, bool | None] = {}
    for match in filter(None, map(_VERDICT.match, plain(text).splitlines())):
        number, verdict = int(match[1]), _VERDICTS[match[2].lower()]
        if number in found and found[number] != verdict:
            raise TeacherError("unreadable reply", f"two verdicts on mark {number}")
        found[number] = verdict
    if set(found) != set(range(1, count + 1)):
        raise TeacherError("unreadable reply", f"verdicts on marks {sorted(found)}, expected 1 to {count}")
    return tuple(found[number] for number in range(1, count + 1))


def boxes(text: str, family: Family, frame: Frame) -> tuple[Box, ...]:
    """Return the boxes of a reply in the unit frame, each once; empty if the teacher says that there is none."""
    if not (numbers := family.read(plain(text))):
        if _is_word(_lines(text), NOWHERE):
            return ()
        raise TeacherError("unreadable reply", f"neither a box nor {NOWHERE!r}")
    return tuple(dict.fromkeys(_box(four, frame) for four in numbers))


def _box(numbers: Sequence[float], frame: Frame) -> Box:
    try:
        return Box.from_xyxy(numbers, frame)
    except BoxError as error:
        raise TeacherError("unreadable reply", str(error)) from None


def _candidate(numbers: Sequence[float], sample: Sample, frame: Frame) -> int:
    """Return the index of the thing that a written box refers to."""
    box = _box(numbers, frame)
    overlap = [iou(box, thing.box) for thing in sample.things]
    best = max(range(len(overlap)), key=overlap.__getitem__)
    if overlap[best] < SAME_BOX:
        raise TeacherError("unreadable reply", f"box {[round(n, 1) for n in numbers]} belongs to no candidate")
    return best


def _lines(text: str) -> list[str]:
    """Return the lines of a list without bullets, numbers, emphasis and full stops."""
    lines = (_BULLET.sub("", line).replace("**", "").strip() for line in plain(text).splitlines())
    return [line.rstrip(".").strip() for line in lines if line.strip(" .-*")]


def _is_word(lines: Sequence[str], word: str) -> bool:
    return len(lines) == 1 and lines[0].strip("\"'`").casefold() == word
