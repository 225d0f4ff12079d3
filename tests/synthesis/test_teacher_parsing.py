"""Replies are read whatever they are dressed in; what cannot be read is refused by name and never guessed."""

from __future__ import annotations

import pytest

from mllm.boxes import Box, Frame
from mllm.models import families
from mllm.records import Sample, Thing
from mllm.synthesis import teacher_parsing, teacher_prompts
from mllm.synthesis.capabilities import ReasoningRequest, TeacherError

THINGS = (Thing("Wren", Box(0.6, 0.2, 0.9, 0.8)), Thing("Dunnock", Box(0.1, 0.2, 0.4, 0.8)))
SAMPLE = Sample(
    "s", "ground", "a.png", Frame(800, 400), "bird", "Wren", "Find the bird Wren.", (THINGS[0].box,), THINGS
)
THOUSAND = Frame(1000, 1000)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("At [100, 200, 400, 800] a stripe. So it is [600, 200, 900, 800].", "At <obj:1> a stripe. So it is <obj:0>."),
        ("(100,200),(400,800) no; (601,199),(899,801).", "<obj:1> no; <obj:0>."),
        ('{"bbox_2d": [100, 200, 400, 800], "label": "Dunnock"} no.', "<obj:1> no."),
        ("<|object_ref_start|>Wren<|object_ref_end|><|box_start|>(600,200),(900,800)<|box_end|>", "Wren<obj:0>"),
        ("<box>100 200 400 800</box> no", "<obj:1> no"),
        ("<think>[0, 0, 1, 1]?</think>```\nIt is [600, 200, 900, 800].\n```", "It is <obj:0>."),
        ("First.\n\n\n  Then [600, 200, 900, 800].", "First.\nThen <obj:0>."),
    ],
)
def test_boxes_of_a_thought_become_references(text: str, read: str) -> None:
    assert teacher_parsing.thought(text, SAMPLE, THOUSAND) == read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("It is the right one.", "no box"),
        ("It is [0, 0, 90, 90].", "belongs to no candidate"),
        ("It is [600, 200, 1900, 800].", "leaves its frame"),
        ("It is [900, 200, 600, 800].", "inverted"),
        ("  \n", "empty"),
        ("<think>hm [600, 200, 900, 800]", "does not answer"),
    ],
)
def test_a_thought_that_cannot_be_read_is_refused(text: str, why: str) -> None:
    with pytest.raises(TeacherError, match=why) as refused:
        teacher_parsing.thought(text, SAMPLE, THOUSAND)
    assert refused.value.reason == "unreadable reply"


def test_qwen2_5_boxes_are_on_the_resized_image() -> None:
    family = families.load("qwen2_5_vl")
    frame = family.frame(SAMPLE.size, family.budget)
    written = " ".join(family.mention(thing.box, frame) for thing in THINGS)
    assert teacher_parsing.thought(written, SAMPLE, frame) == "<obj:0> <obj:1>"
    assert f"from 0 to {frame.width:g} across" in teacher_prompts.reasoning(
        ReasoningRequest(SAMPLE, {}, 0), family, frame
    )


def test_the_request_for_reasoning_says_what_is_known() -> None:
    text = teacher_prompts.reasoning(
        ReasoningRequest(SAMPLE, {"Wren": ("cocked tail", "pale brow")}, 0), families.load("qwen3_vl"), THOUSAND
    )
    listed = "1. Dunnock at [100, 200, 400, 800]\n2. Wren at [600, 200, 900, 800] (known marks: cocked tail; pale brow)"
    assert listed in text and '"Find the bird Wren." The answer is number 2, Wren.' in text
    assert "2 birds" in text


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("- white wing bar\n- red bill.\n* White wing bar", ("white wing bar", "red bill")),
        ("Here are the marks:\n1. **red** bill\n2) 3 white bars\n\n", ("red bill", "3 white bars")),
        ("Unknown.", ()),
        ("```\nunknown\n```", ()),
    ],
)
def test_marks(text: str, marks: tuple[str, ...]) -> None:
    assert teacher_parsing.marks(text) == marks


def test_prose_is_no_list_of_marks() -> None:
    for text in ("The wren is a small bird that " + "very often " * 10 + "cocks its tail", "Marks:", ""):
        with pytest.raises(TeacherError, match="unreadable reply"):
            teacher_parsing.marks(text)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (
            "cocked tail | level tail\n- short bill| thin bill.",
            (("cocked tail", "level tail"), ("short bill", "thin bill")),
        ),
        ("| Wren | Dunnock |\n|---|---|\n| brown | grey |", (("brown", "grey"),)),
        ("Differences:\na | b | c\nbrown | grey", (("brown", "grey"),)),
        ("unknown", ()),
    ],
)
def test_differences(text: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert teacher_parsing.differences(text, "Wren", "Dunnock") == pairs


def test_differences_without_pairs() -> None:
    for text in ("They differ in size.", "| Wren | Dunnock |\n|---|---|", "| x |"):
        with pytest.raises(TeacherError, match="this . that"):
            teacher_parsing.differences(text, "Wren", "Dunnock")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1: yes\n2: no\n3: unclear", (True, False, None)),
        ("3. unclear\n1. Yes\n2. no.", (True, False, None)),
        ("**1**: red bill - yes\n2: white bar: No\n(3) Unclear", (True, False, None)),
        ("1: yes\n1: yes\n2: no\n3: no", (True, False, False)),
    ],
)
def test_verdicts(text: str, expected: tuple[bool | None, ...]) -> None:
    assert teacher_parsing.verdicts(text, 3) == expected


@pytest.mark.parametrize(
    "text",
    ["1: yes\n2: no", "1: yes\n2: no\n3: no\n4: no", "1: yes\n1: no\n2: no\n3: no", "yes", "1: maybe\n2: no\n3: no"],
)
def test_verdicts_that_do_not_answer_each_mark(text: str) -> None:
    with pytest.raises(TeacherError, match="unreadable reply"):
        teacher_parsing.verdicts(text, 3)


def test_boxes() -> None:
    family = families.load("qwen3_vl")
    text = '[{"bbox_2d": [100, 200, 400, 800], "label": "x"}, {"bbox_2d": [600, 200, 900, 800]}]\n[100, 200, 400, 800]'
    assert teacher_parsing.boxes(text, family, THOUSAND) == (Box(0.1, 0.2, 0.4, 0.8), Box(0.6, 0.2, 0.9, 0.8))
    assert teacher_parsing.boxes("None.", family, THOUSAND) == ()
    for wrong in ("I see no wren here", "[0, 0, 2000, 10]", "[5, 5, 5, 5]"):
        with pytest.raises(TeacherError, match="unreadable reply"):
            teacher_parsing.boxes(wrong, family, THOUSAND)


def test_prose() -> None:
    assert teacher_parsing.prose('"A  brown\nbird."') == "A brown bird."
    assert teacher_parsing.prose('"Wren", he said, "is here"') == '"Wren", he said, "is here"'
    with pytest.raises(TeacherError, match="empty"):
        teacher_parsing.prose("```\n```")
