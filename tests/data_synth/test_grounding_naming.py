"""Grounding data with questions for a name: open and with letters, of a photo and at a box, by every teacher."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mllm.boxes import Frame
from mllm.cli.commands import convert
from mllm.errors import FieldmarkError
from mllm.knowledge.cards import Cards
from mllm.models import families
from mllm.pocket.species import find
from mllm.prompting.questions import lettered, naming
from mllm.prompting.tasks import task_of
from mllm.records import REFERENCE, Sample
from mllm.synthesis import consistency, teacher_parsing, teacher_prompts, teachers, thoughts
from mllm.synthesis.capabilities import ReasoningRequest, TeacherError
from tests.support.synthesis import CARDS, SPECIES, make, no_look_alikes_between_sides, sample_of, samples

FLAGS = ["--train", "20", "--validation", "6", "--test", "12", "--photos-per-entity", "6", "--domain", "bird"]
QWEN = families.load("qwen3_vl")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("naming") / "data"
    make(out, *FLAGS, "--naming", "0.7", "--sheet", "4")
    return out


def asked(*, boxed: bool, listed: bool = False) -> Sample:
    """One bird of two, or alone, with its sisters among the names."""
    sample = replace(sample_of(2 if boxed else 1, 0), task="name", options=tuple(one.name for one in SPECIES[:6]))
    place = "at <obj:0>" if boxed else "this"
    return replace(sample, question=naming("bird", place, sample.options[:4] if listed else ()), genus="Talo")


def test_every_question_for_a_name_is_sound(out: Path) -> None:
    kinds: Counter[tuple[str | None, bool, bool]] = Counter()
    for row in samples(out):
        kinds[row.kind, lettered(row.question), len(row.things) == 1] += row.kind == "naming"
        if row.kind != "naming":
            assert row.task == "ground" and len(row.things) > 1 and not row.options
            continue
        one = find(row.entity)
        assert row.task == "name" and row.genus == one.genus and row.boxes and row.entity in row.options
        assert (len(row.things) == 1) == (REFERENCE.search(row.question) is None)
        assert len(row.options) == 4 if lettered(row.question) else row.entity not in row.question
        uses = {find(name).use for name in row.options}
        assert uses <= {"train", row.split}, "no name that is held out stands in a training row"
        assert (
            row.thought and thoughts.problem(row, row.thought, CARDS) is None and row.thought.endswith(f"{one.name}.")
        )
        task_of(row).check(row, "think")
    shapes = [shape for shape in kinds if shape[0] == "naming"]
    assert len(shapes) == 4 and sum(kinds[shape] for shape in shapes) > 20, "open and listed, of a photo and at a box"
    no_look_alikes_between_sides(out)


@pytest.mark.ci
def test_a_share_of_zero_changes_no_question(tmp_path: Path) -> None:
    few = ["--train", "4", "--validation", "2", "--test", "2", "--photos-per-entity", "3", "--domain", "bird"]
    make(tmp_path / "a", *few)
    assert {row.task for row in samples(tmp_path / "a")} == {"ground"}
    make(tmp_path / "b", *few, "--naming", "1", "--questions", "2")
    rows = samples(tmp_path / "b")
    assert {row.kind for row in rows} == {"naming"} and all(REFERENCE.search(row.question) for row in rows)


@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize("teacher", ["pocket", "cards"])
def test_a_thought_looks_recalls_compares_and_names(teacher: str, boxed: bool) -> None:
    sample = asked(boxed=boxed)
    for seed in range(8):
        thought = teachers.load(teacher).reason(ReasoningRequest(sample, CARDS, seed))
        assert thoughts.problem(sample, thought, CARDS) is None, thought
        assert ("<obj:0>" in thought.split(".")[0]) == boxed, "it looks first"
        assert sum(name in thought for name in sample.options) >= 2, "it compares"


def test_a_fallible_thought_may_end_on_another_name_which_is_refused() -> None:
    found = Counter()
    for number in range(30):
        start = number % 25
        names = tuple(one.name for one in SPECIES[start : start + 4])
        sample = replace(sample_of(1, 0, start), id=f"s{number}", task="name", question="?", options=names)
        teacher = teachers.load("pocket_fallible", hasty=0.2, blind=1.0)
        found[thoughts.wrong_conclusion(sample, teacher.reason(ReasoningRequest(sample, CARDS, 0)))] += 1
    assert found[None] and found["concludes on another name"] and len(found) == 2


@pytest.mark.parametrize(
    ("thought", "message"),
    [
        ("<obj:0>: round. So {0}.", None),
        ("<obj:0>: round. So it is not {1} but {0}.", None),
        ("<obj:0>: round. So {1}.", "concludes on another name"),
        ("<obj:0>: round. So {0} or {1}.", "concludes on another name"),
        ("<obj:0>: round. So it is a fine one.", "concludes on another name"),
        ("I see: round. So {0}.", "a candidate was not looked at"),
        ("I was told its name. <obj:0> fits. So {0}.", "says that the answer was given"),
        ("<obj:0>: <answer>{0}</answer>.", "holds answer tags"),
    ],
)
def test_unsound_thoughts_are_refused(thought: str, message: str | None) -> None:
    sample = asked(boxed=True)
    first, second = sample.options[:2]
    assert thoughts.problem(sample, thought.format(first, second)) == message


def test_a_mark_of_another_kind_is_found_unless_its_sentence_names_that_kind() -> None:
    sample = replace(asked(boxed=False), options=("wren", "kite"), entity="wren", things=())
    cards = Cards({"wren": ("red bill",), "kite": ("blue bill",)})
    assert consistency.contradictions(sample, "Here I see a blue bill. So wren.", cards)
    assert not consistency.contradictions(sample, "Here I see a red bill. The kite has a blue bill. So wren.", cards)


@pytest.mark.parametrize("boxed", [True, False])
def test_a_prompted_teacher_is_asked_for_a_name_and_read(boxed: bool) -> None:
    sample, frame = asked(boxed=boxed), Frame(1000, 1000)
    text = teacher_prompts.reasoning(ReasoningRequest(sample, CARDS, 0), QWEN, frame)
    written = QWEN.mention(sample.things[0].box, frame)
    assert (written in text) == boxed and "<obj" not in text and f"names {sample.entity} and no other" in text
    reply = f"At {written} I see red. So it is {sample.entity}." if boxed else f"Here is red. So it is {sample.entity}."
    thought = teacher_parsing.thought(reply, sample, frame)
    assert thoughts.wrong_conclusion(sample, thought) is None and ("<obj:0>" in thought) == boxed
    if boxed:
        with pytest.raises(TeacherError, match="no box in the reasoning"):
            teacher_parsing.thought(f"So it is {sample.entity}.", sample, frame)


def test_other_tools_rows_cannot_hold_a_name(out: Path, tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match="sharegpt rows hold boxes, and it asks for a name"):
        convert.command(convert.Options(out / "train.jsonl", tmp_path / "x.json", write_as="sharegpt"))
