"""Model text to answers: what is read, what is not and why, and that no text can raise or stall the reader."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm.boxes import Box, Frame
from mllm.models import families
from mllm.models.box_notation import read_boxes
from mllm.prompting import answers
from mllm.prompting.answers import parse
from mllm.records import Sample, Thing

POCKET, QWEN3, QWEN2 = families.load("pocket"), families.load("qwen3_vl"), families.load("qwen2_vl")
HUNDRED, THOUSAND = Frame(100, 100), Frame(1000, 1000)
BOX = Box(0.12, 0.34, 0.56, 0.78)
SAMPLE = Sample(
    id="1",
    task="ground",
    image="1.png",
    size=Frame(640, 480),
    domain="bird",
    entity="Talo ruvi",
    question="Find the bird Talo ruvi.",
    boxes=(BOX,),
    things=(Thing("Talo ruvi", BOX), Thing("Talo vina", Box(0, 0, 0.1, 0.1))),
    thought="Talo ruvi: round. 1 <obj:0>: round. 2 <obj:1>: wide. So 1.",
)

WRITTEN = {
    "corners": "(120,340),(560,780)",
    "corners with spaces": "( 120 , 340 ) , ( 560 , 780 )",
    "corners without a comma": "(120,340) (560,780)",
    "corners on two lines": "(120,340),\n(560,780)",
    "qwen2 tokens": "<|box_start|>(120,340),(560,780)<|box_end|>",
    "qwen2 with its object": "<|object_ref_start|>a (b)<|object_ref_end|><|box_start|>(120,340),(560,780)<|box_end|>",
    "list": "[120, 340, 560, 780]",
    "list without spaces": "[120,340,560,780]",
    "round list": "(120, 340, 560, 780)",
    "floats": "[120.0, 340.00, 560., 780.0]",
    "signs": "(+120,340),(560,780)",
    "pairs of lists": "[[120, 340], [560, 780]]",
    "json": '{"bbox_2d": [120, 340, 560, 780], "label": "Boeing 747-400"}',
    "json without spaces": '[{"bbox_2d":[120,340,560,780],"label":"x"}]',
    "single quotes": "{'bbox_2d': [120, 340, 560, 780]}",
    "fenced json": '```json\n[\n\t{"bbox_2d": [120, 340, 560, 780], "label": "x"}\n]\n```',
    "pretty json": '{\n  "bbox_2d": [\n    120,\n    340,\n    560,\n    780\n  ]\n}',
    "internvl": "<ref>bird</ref><box>[[120, 340, 560, 780]]</box>",
    "minicpm": "<ref>bird</ref><box>120 340 560 780</box>",
    "glm": "<|begin_of_box|>[[120,340,560,780]]<|end_of_box|>",
    "in a sentence": "It is at (120,340),(560,780), I think.",
    "the last of several": "(1,2),(3,4) no, [5, 6, 7, 8] no, (120,340),(560,780)",
    "after one that is none": "(900,900),(1,1) (120,340),(560,780)",
    "beside other lists": "[1, 2, 3] (120,340),(560,780) (1, 2) [1, 2, 3, 4, 5]",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_every_form_is_read(text: str) -> None:
    answer = parse(f"<answer>{text}</answer>", QWEN3, THOUSAND)
    assert answer.problem is None and not answer.absent
    assert answer.box == BOX and answer.boxes[-1] == BOX
    assert answer.numbers[-1] == (120, 340, 560, 780)
    assert answer.answer == text and answer.thought is None


def test_floats_keep_their_fractions() -> None:
    answer = parse("<answer>(0.5,10.25),(99.75,100)</answer>", POCKET, HUNDRED)
    assert answer.numbers == ((0.5, 10.25, 99.75, 100.0),)
    assert answer.boxes == (Box(0.005, 0.1025, 0.9975, 1),)


def test_numbers_keep_all_boxes_and_what_lies_outside() -> None:
    answer = parse("<answer>(1,2),(3,4) and (-5,0),(120,50)</answer>", POCKET, HUNDRED)
    assert answer.numbers == ((1, 2, 3, 4), (-5, 0, 120, 50))
    assert answer.boxes == () and answer.problem == answers.OUTSIDE


UNREADABLE = {
    "": answers.NO_ANSWER,
    "(12,34),(56,78)": answers.NO_ANSWER,
    "So the answer is (12,34),(56,78).": answers.NO_ANSWER,
    "<think>(12,34),(56,78)</think>": answers.NO_ANSWER,
    "<think>(12,34),(56,78)": answers.NO_ANSWER,
    "<think>It goes in <answer>(12,34),(56,78)</answer>.</think>": answers.NO_ANSWER,
    "<think>I am asked for <answer></answer>.</think>": answers.NO_ANSWER,
    "</answer>(12,34),(56,78)": answers.NO_ANSWER,
    "<Answer>(12,34),(56,78)</Answer>": answers.NO_ANSWER,
    "<answer></answer>": answers.EMPTY,
    "<answer> \n </answer>": answers.EMPTY,
    "<answer>" + " " * 100 + "</answer>": answers.EMPTY,
    "Answer in <answer></answer>.": answers.EMPTY,
    "<answer>(12,34),(56,78)": answers.OPEN,
    "<answer>(12,34),(56,78)</answer": answers.OPEN,
    "<answer>(12,34),(56,78)</answer><answer>(12,34),(56,78)</answer>": answers.SEVERAL,
    "<answer>(1,2),(3,4)</answer> wait <answer>(12,34),(56,78)": answers.SEVERAL,
    "<answer><answer>(12,34),(56,78)</answer></answer>": answers.SEVERAL,
    "<answer>the left one</answer>": answers.NO_BOX,
    "<answer>(12,34)</answer>": answers.NO_BOX,
    "<answer>(12,34),(56</answer>": answers.NO_BOX,
    "<answer>[12, 34, 56]</answer>": answers.NO_BOX,
    "<answer>[12, 34, 56, 78, 90]</answer>": answers.NO_BOX,
    "<answer>(12,34),(56,78]</answer>": answers.NO_BOX,
    "<answer>12 34 56 78</answer>": answers.NO_BOX,
    "<answer>(12,34),(1234567890123,78)</answer>": answers.NO_BOX,
    "<answer>(a,b),(c,d)</answer>": answers.NO_BOX,
    "<answer>(nan,0),(inf,1)</answer>": answers.NO_BOX,
    "<answer>(12,34),(56,101)</answer>": answers.OUTSIDE,
    "<answer>(-1,34),(56,78)</answer>": answers.OUTSIDE,
    "<answer>(1,2),(3,4) (12,34),(560,780)</answer>": answers.OUTSIDE,
    "<answer>(0.3,0.1),(0.7,0.9)</answer>": answers.SHARES,
    "<answer>[0, 0.1, 1, 1]</answer>": answers.SHARES,
    "<answer>(12,34),(56,78) (0.9,0.1),(0.7,1.0)</answer>": answers.SHARES,
    "<answer>(56,34),(12,78)</answer>": answers.INVERTED,
    "<answer>(12,78),(56,34)</answer>": answers.INVERTED,
    "<answer>(12,34),(12,78)</answer>": answers.INVERTED,
    "<answer>(560,34),(120,78)</answer>": answers.INVERTED,
}


@pytest.mark.parametrize(("text", "problem"), UNREADABLE.items(), ids=list(UNREADABLE.values()))
def test_what_cannot_be_read_says_why(text: str, problem: str) -> None:
    answer = parse(text, POCKET, HUNDRED)
    assert answer.problem == problem
    assert answer.boxes == () and answer.box is None


def test_every_problem_has_a_case() -> None:
    assert set(UNREADABLE.values()) == set(answers.PROBLEMS)


THINKING = {
    "<think>a b</think><answer>(12,34),(56,78)</answer>": "a b",
    "<think>\na b\n</think>\n\n<answer>\n(12,34),(56,78)\n</answer>\n": "a b",
    "<think>a b <answer>(12,34),(56,78)</answer>": "a b",
    "<think>a <answer> b</think><answer>(12,34),(56,78)</answer>": "a <answer> b",
    "<think>a <answer>(1,2),(3,4)</answer></think><answer>(12,34),(56,78)</answer>": "a <answer>(1,2),(3,4)</answer>",
    "<think>a</think> so <think>b</think><answer>(12,34),(56,78)</answer>": "a\nb",
    "<think></think><answer>(12,34),(56,78)</answer>": None,
    "Sure.<answer>(12,34),(56,78)</answer>(1,2),(3,4)": None,
    "</think><answer>(12,34),(56,78)</answer>": None,
    "<answer>(12,34),(56,78)</answer><think>late</think>": "late",
    "Reason in <think></think>, then in <answer></answer>. <think>a</think><answer>(12,34),(56,78)</answer>": "a",
    "in <think> </think> and <answer> </answer> tags: <answer>(12,34),(56,78)</answer>": None,
    "<think>in <answer></answer> after <think></think>.</think><answer>(12,34),(56,78)</answer>": "in  after .",
    "<answer>(12,34),(56,78)</answer><answer></answer>": None,
    "<answer>(12,34),(56,78)</answer><|im_end|>": None,
}


@pytest.mark.parametrize(("text", "thought"), THINKING.items())
def test_thoughts_and_quoted_tags(text: str, thought: str | None) -> None:
    answer = parse(text, POCKET, HUNDRED)
    assert answer.problem is None and answer.box == BOX
    assert answer.thought == thought


PREFILLED = {
    "a b</think><answer>(12,34),(56,78)</answer>": "a b",
    "<think>a b</think><answer>(12,34),(56,78)</answer>": "a b",
    "a b <answer>(12,34),(56,78)</answer>": "a b",
    "a <answer>(1,2),(3,4)</answer> b</think><answer>(12,34),(56,78)</answer>": "a <answer>(1,2),(3,4)</answer> b",
    "</think><answer>(12,34),(56,78)</answer>": None,  # as in whole text, where an empty pair is no thought
}


@pytest.mark.parametrize(("text", "thought"), PREFILLED.items())
def test_a_thought_that_the_prompt_had_opened(text: str, thought: str | None) -> None:
    answer = parse(answers.whole("<think>", text), POCKET, HUNDRED)
    assert answer.problem is None and answer.box == BOX
    assert answer.thought == thought


ABSENT = [
    "none",
    " None. ",
    "nothing",
    "[]",
    "[ ]",
    "absent",
    "Not in this picture.",
    "It is not in this picture.",
    "not visible in the image",
    "No such bird.",
    "There is no such thing in this picture.",
    "There is no Talo ruvi here.",
    "none of these",
]


@pytest.mark.parametrize("text", ABSENT)
def test_an_explicit_none_is_read_as_absent(text: str) -> None:
    answer = parse(f"<think>1 (1,2),(3,4): not.</think><answer>{text}</answer>", POCKET, HUNDRED)
    assert answer.absent and answer.problem is None
    assert answer.boxes == answer.numbers == () and answer.box is None


@pytest.mark.parametrize(
    "text",
    [
        "none of these but the left one",
        "no",
        "no, the left one",
        "not the left one",
        "none (12,34)",
        "no idea",
        "? none",
    ]
    + ["I see none, or one.", "nothing like it; left", "[1]", "[[]]", "the left one is not in the shade"],
)
def test_what_is_no_plain_none_is_not_read_as_one(text: str) -> None:
    answer = parse(f"<answer>{text}</answer>", POCKET, HUNDRED)
    assert not answer.absent and answer.problem == answers.NO_BOX


def test_a_box_beside_a_none_counts() -> None:
    answer = parse("<answer>none but (12,34),(56,78)</answer>", POCKET, HUNDRED)
    assert answer.box == BOX and not answer.absent


def test_several_boxes_are_read_in_order_and_the_last_decides() -> None:
    answer = parse("<answer>(1,2),(3,4), (9,9),(5,5), (12,34),(56,78)</answer>", POCKET, HUNDRED)
    assert answer.boxes == (Box(0.01, 0.02, 0.03, 0.04), BOX) and answer.box == BOX
    assert len(answer.numbers) == 3
    assert parse("<answer>(12,34),(56,78), (9,9),(5,5)</answer>", POCKET, HUNDRED).problem == answers.INVERTED


FAMILIES = [families.load(name) for name in families.names()]


PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "<box>", "(12,34)", "(56,78)", "[1, 2, 3, 4]",
    "9" * 12, "1.", "-", ",", "(", "[", " ", "\n", "x",
]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)), st.booleans())
def test_no_text_raises(text: str, prefilled: bool) -> None:
    answer = parse(answers.whole("<think>" if prefilled else "", text), POCKET, HUNDRED)
    assert (answer.problem is None) == (len(answer.boxes) >= 1 or answer.absent)
    assert not (answer.absent and answer.numbers)
    assert answer.problem in (None, *answers.PROBLEMS)


HOSTILE = [
    "(", "[", "((12,34),", "(12,34)", "[1,", "[ ", "( 1 , ", "9", "(1.", "<", "<box>1 ", " ", "\n",
    "<think>", "</think>", "<answer>", "</answer>", "<answer> ", "<think></think>", "<answer></answer>",
    "<think>a</think>", "<think><answer>", "<answer>(1,2),(3,4)</answer>",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear_in_the_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = "<answer>" + piece * (length // len(piece))
        best = float("inf")
        for _ in range(3):
            start = time.process_time()  # not the wall's clock: test machines are busy
            parse(text, POCKET, HUNDRED)
            best = min(best, time.process_time() - start)
        return best

    # Eight times the text: linear is 8, quadratic 64. The floor keeps the clock's noise out.
    assert seconds(160_000) < 25 * max(seconds(20_000), 0.002)


@settings(max_examples=80)
@given(st.lists(st.lists(st.integers(-9999, 9999), min_size=4, max_size=4), max_size=5), st.data())
def test_boxes_are_read_in_order(boxes: list[list[int]], data: st.DataObject) -> None:
    forms = ["({},{}),({},{})", "[{}, {}, {}, {}]", "({}, {}, {}, {})", "<box>{} {} {} {}</box>", "[{},{}] [{},{}]"]
    text = " then ".join(data.draw(st.sampled_from(forms)).format(*box) for box in boxes)
    assert read_boxes(text) == boxes


@pytest.mark.parametrize("text", ["(0,0),(1,1)", "(0.5,0.5),(1.5,2)", "(0.3,0.1),(0.7,900)", "(1.0,0.0),(1.0,2.5)"])
def test_small_boxes_of_a_familys_own_numbers_are_no_shares(text: str) -> None:
    assert parse(f"<answer>{text}</answer>", QWEN3, THOUSAND).problem in (None, answers.INVERTED)


def test_shares_beside_a_box_do_not_count(tmp_path: object) -> None:
    answer = parse("<answer>(0.1,0.2),(0.3,0.4) (120,340),(560,780)</answer>", QWEN3, THOUSAND)
    assert answer.boxes == (BOX,) and len(answer.numbers) == 2
