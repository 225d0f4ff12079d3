"""Links of a thought: hand-worked cases, the oracle's own grammar, and rubbish."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mllm.boxes import Box, Frame
from mllm.metrics import reasoning
from mllm.models import families
from mllm.pocket.species import species
from mllm.prompting import answers
from mllm.prompting.tasks import task_of
from mllm.records import Answer, Sample, Thing
from mllm.synthesis import teachers
from mllm.synthesis.capabilities import ReasoningRequest

POCKET = families.load("pocket")
FRAME = Frame(100, 100)
THINGS = (
    Thing("Talo ruvi", Box(0.10, 0.10, 0.40, 0.50), ("round", "red", "striped", "blue cap")),
    Thing("Talo mesi", Box(0.60, 0.10, 0.90, 0.50), ("round", "red", "plain", "blue cap")),
    Thing("Talo kano", Box(0.10, 0.60, 0.40, 0.90), ("wide", "red", "striped", "blue cap")),
)
SAMPLE = Sample(
    id="s",
    task="ground",
    image="x.png",
    size=Frame(192, 192),
    domain="bird",
    entity="Talo ruvi",
    question="Find the bird Talo ruvi.",
    boxes=(THINGS[0].box,),
    things=THINGS,
    split="test",
)
GOLD = (
    "Talo ruvi: round, red, striped, blue cap. 1 (10,10),(40,50): round, red, striped, blue cap. "
    "2 (60,10),(90,50): round, red, plain, blue cap. 3 (10,60),(40,90): wide, red, striped, blue cap. So 1."
)


def judged(thought, numbers=(10, 10, 40, 50), problem=None):
    answer = Answer(thought, None, (), (tuple(map(float, numbers)),) if numbers else (), problem)
    found = reasoning.judge_steps(SAMPLE, answer, POCKET, FRAME)
    assert found is not None
    return found


def with_verdicts(*verdicts: str) -> str:
    """The gold thought with a verdict after each mark and after each candidate's marks."""
    head, *rest = GOLD.split("cap. ")
    sought = THINGS[0].marks
    pieces = []
    for piece, verdict in zip(rest[:-1], verdicts, strict=True):
        place, marks = f"{piece}cap".split(": ")
        each = ", ".join(f"{mark} {'fits' if mark in sought else 'not'}" for mark in marks.split(", "))
        pieces.append(f"{place}: {each}, {verdict}. ")
    return f"{head}cap. {''.join(pieces)}{rest[-1]}"


def test_a_verdict_is_judged_by_the_models_own_words():
    assert judged(GOLD).get("judged") is None
    assert judged(with_verdicts("fits", "not", "not"))["judged"] == (3, 3)
    assert judged(with_verdicts("not", "fits", "not"))["judged"] == (1, 3)
    thought = reasoning.read_thought(with_verdicts("fits", "not", "not"), POCKET, FRAME)
    assert [c.fits for c in thought.candidates] == [True, False, False]
    assert thought.candidates[0].marks == THINGS[0].marks
    forgotten = with_verdicts("fits", "not", "not").replace("Talo ruvi: round", "Talo ruvi: tall", 1)
    assert judged(forgotten)["judged"] == (2, 3), "judged against what it recalled, right or wrong"


def test_a_right_thought_holds_in_every_link():
    counts = judged(with_verdicts("fits", "not", "not").replace("So 1.", "So 1 (10,10),(40,50)."))
    assert set(counts) == set(reasoning.STEPS)
    assert all(right == of for right, of in counts.values())
    assert counts["found"] == (3, 3) and counts["marks seen"] == (3, 3) and counts["mark seen"] == (12, 12)


def test_reading_a_thought():
    thought = reasoning.read_thought(GOLD, POCKET, FRAME)
    assert thought.name == "Talo ruvi" and thought.recalled == THINGS[0].marks and thought.chosen == 1
    assert [c.number for c in thought.candidates] == [1, 2, 3]
    assert thought.candidates[1].numbers == (60, 10, 90, 50) and thought.candidates[1].marks == THINGS[1].marks
    assert thought.choice() is thought.candidates[0]


def test_wrong_recall_rightly_compared():
    # recalls the sister's marks, sees everything right, chooses what fits its own recall, copies that box
    counts = judged(
        GOLD.replace("ruvi: round, red, striped", "ruvi: round, red, plain").replace("So 1", "So 2"), (60, 10, 90, 50)
    )
    assert counts["recall"] == (0, 1) and counts["recall words"] == (pytest.approx(4 / 5), 1)
    assert counts["found"] == (3, 3) and counts["marks seen"] == (3, 3)
    assert counts["compared"] == (1, 1), "the choice fits the model's own words"
    assert counts["chosen"] == (0, 1) and counts["copied"] == (1, 1)
    assert "compared given true" not in counts, "asked only where everything before the choice was right"


def test_right_recall_wrongly_compared():
    counts = judged(GOLD.replace("So 1", "So 3"), (10, 60, 40, 90))
    assert counts["recall"] == (1, 1) and counts["compared"] == (0, 1) and counts["compared given true"] == (0, 1)
    assert counts["chosen"] == (0, 1) and counts["copied"] == (1, 1)


def test_a_thing_not_found_and_a_mark_misread():
    moved = GOLD.replace("2 (60,10)", "2 (80,10)").replace("(40,90): wide", "(40,90): tall")
    counts = judged(moved)
    assert counts["found"] == (2, 3), "2: a third of the width is left, below one half"
    assert counts["marks seen"] == (1, 2) and counts["mark seen"] == (7, 8)
    assert "compared given true" not in counts and counts["chosen"] == (1, 1)


def test_answer_that_is_not_the_chosen_box():
    assert judged(GOLD, (10, 10, 41, 50))["copied"] == (0, 1)
    assert "copied" not in judged(GOLD, None, "no box in the answer")


def test_no_preference_is_not_counted_as_comparing():
    same = "Talo ruvi: round. 1 (10,10),(40,50): round. 2 (60,10),(90,50): round. So 2."
    assert "compared" not in judged(same)


def test_two_candidates_may_tie_for_best():
    tie = "Talo: round, red. 1 (10,10),(40,50): round, red. 2 (60,10),(90,50): red, round. 3 (1,60),(4,90): wide. So 2."
    assert judged(tie)["compared"] == (1, 1)


def test_one_candidate_cannot_find_two_things():
    twice = "Talo ruvi: round. 1 (10,10),(40,50): round. 2 (10,10),(40,50): round. So 1."
    assert judged(twice)["found"] == (1, 3)


def test_verdicts_on_single_marks():
    text = (
        "Talo ruvi: round, red. 1 (10,10),(40,50): round fits, red fits, fits. "
        "2 (60,10),(90,50): round not, tall not, not."
    )
    counts = judged(text + " So 1.")
    assert counts["mark judged"] == (3, 4), "the second one is round too"
    assert counts["judged"] == (2, 2)
    first, second = reasoning.read_thought(text, POCKET, FRAME).candidates
    assert first.marks == ("round", "red") and first.each == (True, True) and first.fits
    assert second.each == (False, False) and second.fits is False


def test_the_box_behind_the_choice_is_a_link_of_its_own():
    two = "Talo ruvi: round. 1 (10,10),(40,50): round, fits. 2 (60,10),(90,50): wide, not. So 1 {}."
    right, wrong = judged(two.format("(10,10),(40,50)"), (10, 10, 40, 50)), judged(two.format("(10,10),(40,51)"), None)
    assert right["restated"] == (1.0, 1) and wrong["restated"] == (0.0, 1)
    assert right["chosen"] == wrong["chosen"] == (1.0, 1)
    assert "restated" not in judged(two.replace(" {}", ""), None)
    assert judged(two.format("or 2"), None)["form"] == (0.0, 1), "words behind the number are no choice"


def test_a_description_is_recalled_from_the_question_and_judged_by_its_own_marks():
    """Its thought has no name at its head, and a candidate fits that has the marks asked for, whatever else it has."""
    asked = replace(SAMPLE, asked=("striped", "blue cap"), question="Find the bird with marks ...")
    first, second, third = THINGS
    text = (
        "marks: striped, blue cap. 1 (10,10),(40,50): round, red, striped fits, blue cap fits, fits. "
        "2 (60,10),(90,50): round, red, plain not, blue cap fits, not. So 1."
    )
    answer = Answer(text, None, (), ((10.0, 10.0, 40.0, 50.0),), None)
    found = reasoning.judge_steps(asked, answer, POCKET, FRAME)
    assert found is not None and set(first.marks) >= {"striped", "blue cap"} and "plain" in second.marks and third
    assert {name: found[name] for name in ("name", "recall", "recall words")} == dict.fromkeys(
        ("name", "recall", "recall words"), (1.0, 1)
    )
    assert found["judged"] == (2, 2) and found["mark judged"] == (4, 4) and found["chosen"] == (1, 1)


RUBBISH = [None, "", "So 1.", "1 2 3", "Talo ruvi", "x: y. 1 nothing here. So 7.", ": . So .", "So 9" * 99]


@pytest.mark.parametrize("thought", RUBBISH)
def test_rubbish_is_counted_never_raised(thought):
    counts = judged(thought)
    assert counts["form"] == (0, 1) and counts["found"] == (0, 3) and "compared" not in counts


def test_numbers_that_are_no_box():
    counts = judged("Talo ruvi: round. 1 (40,50),(10,10): round. 2 (1,1),(900,2): red. So 1.", None, "no box")
    assert counts["found"] == (0, 3) and counts["chosen"] == (0, 1)


def test_samples_without_marks_are_left_out():
    bare = Sample(
        id="s",
        task="ground",
        image="x.png",
        size=Frame(9, 9),
        domain="bird",
        entity="a",
        question="q",
        boxes=(THINGS[0].box,),
        things=(Thing("a", THINGS[0].box),),
        split="test",
    )
    assert reasoning.judge_steps(bare, Answer(GOLD, None, (), (), None), POCKET, FRAME) is None


def test_table_sums_with_its_own_denominators():
    answer = Answer(GOLD, None, (), ((10.0, 10.0, 40.0, 50.0),), None)
    good = reasoning.judge_steps(SAMPLE, answer, POCKET, FRAME)
    bad = reasoning.judge_steps(SAMPLE, Answer(None, None, (), (), "no answer tag"), POCKET, FRAME)
    rows = {row["name"]: row for row in reasoning.sum_steps([good, bad])}
    assert list(rows) == list(reasoning.STEPS)
    assert [rows["recall"][key] for key in ("right", "of", "share")] == [1, 2, 0.5]
    assert (rows["found"]["right"], rows["found"]["of"]) == (3, 6)
    assert (rows["compared"]["right"], rows["compared"]["of"]) == (1, 1)
    assert reasoning.sum_steps([])[0]["share"] is None


def test_the_oracles_own_thoughts_hold_in_every_link():
    domain = species("bird")
    for k in range(12):
        chosen = domain[3 * k : 3 * k + 2 + k % 4] if k < 9 else domain[k : k + 3]
        places = [Box(0.05 + 0.15 * n, 0.1 + 0.1 * (n % 3), 0.17 + 0.15 * n, 0.4 + 0.1 * (n % 3)) for n in range(6)]
        things = tuple(Thing(one.name, places[(5 * n + k) % 6], one.marks) for n, one in enumerate(chosen))
        target = things[k % len(things)]
        sample = replace(SAMPLE, entity=target.entity, boxes=(target.box,), things=things)
        sample = replace(sample, thought=teachers.load("pocket").reason(ReasoningRequest(sample, {}, k)))
        answer = answers.parse(task_of(sample).target(sample, "think", POCKET, FRAME), POCKET, FRAME)
        found = reasoning.judge_steps(sample, answer, POCKET, FRAME)
        assert found is not None and set(found) == set(reasoning.STEPS), sample.thought
        assert all(right == of for right, of in found.values()), sample.thought


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "pocket"])
def test_thoughts_in_every_family(name):
    family = families.load(name)
    frame = family.frame(Frame(640, 480), family.budget)
    neutral = (
        "Talo ruvi: round, red, striped, blue cap. "
        "1 <obj:0>: round fits, red fits, striped fits, blue cap fits, fits. "
        "2 <obj:1>: round fits, red fits, plain not, blue cap fits, not. "
        "3 <obj:2>: wide not, red fits, striped fits, blue cap fits, not. So 1 <obj:0>."
    )
    written = family.write_thought(neutral, THINGS, frame)
    numbers = tuple(tuple(n) for n in family.read(family.write_box(THINGS[0].box, frame)))
    found = reasoning.judge_steps(SAMPLE, Answer(written, None, (), numbers, None), family, frame)
    assert found is not None and set(found) == set(reasoning.STEPS)
    assert all(right == of for right, of in found.values())


@pytest.mark.parametrize("seed", range(8))
def test_every_step_of_what_the_teacher_cards_writes_is_right(seed: int) -> None:
    cards = {thing.entity: thing.marks for thing in THINGS}
    thought = teachers.load("cards").reason(ReasoningRequest(SAMPLE, cards, seed))
    counts = judged(POCKET.write_thought(thought, THINGS, FRAME))
    assert {"form", "name", "recall", "found", "marks seen", "compared", "chosen", "restated", "copied"} <= set(counts)
    assert all(right == of for right, of in counts.values()), counts


def test_a_thought_in_sentences_is_judged_like_one_of_the_other_form() -> None:
    """Articles are no difference; an impossible box finds nothing; two boxes at the end are no choice."""
    one, two = ("(1,1),(9,9)", "(5,5),(5,5)")
    text = (
        "What I know of the Talo: round and red, with a blue cap. At {0} there is one that is red. At {1} I see a cap."
    )
    read = reasoning.read_thought(text.format(one, two) + f" I take it. The match is {one}.", POCKET, FRAME)
    assert (read.name, set(read.recalled)) == ("Talo", {"round", "red", "blue cap"})
    assert [(c.number, c.marks, c.box is None) for c in read.candidates] == [
        (1, ("red",), False),
        (2, ("cap",), True),
    ]
    assert read.chosen == 1 and read.restated == (1, 1, 9, 9) and read.in_sentences
    for end in (f"{one} and {two}", "(2,2),(9,9)", "nothing"):
        assert reasoning.read_thought(text.format(one, two) + f" The match is {end}.", POCKET, FRAME).chosen is None
