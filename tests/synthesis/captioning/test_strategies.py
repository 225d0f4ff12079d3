"""Every strategy on scenes whose facts are known: true captions, refusals with reasons, invention dropped."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mllm.boxes import Box
from mllm.captions import words
from mllm.data.caption_sources import CaptionRequest, images
from mllm.errors import FieldmarkError, UnknownNameError
from mllm.knowledge.cards import Cards, KnowledgeError
from mllm.models import encoders
from mllm.pocket.captions import judge
from mllm.prompting import prose
from mllm.records import Sample
from mllm.synthesis import captioning
from mllm.synthesis.capabilities import Look
from mllm.synthesis.captioning import (
    CaptionLimits,
    CaptionRejected,
    CaptionTask,
    Helpers,
    drop_unseen,
    gist,
    iiw,
    textualize,
)
from mllm.synthesis.teachers import cards, pocket


class Liar(pocket.Teacher):
    """The oracle, but every description ends on a thing that is not there."""

    def describe(self, look: Look, *, seed: int = 0) -> str:
        return f"{super().describe(look, seed=seed)} A wide purple spotted {look.domain}."


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    """Twelve scenes on disk with what people wrote of them; none of their things is wide, purple and spotted."""
    out = tmp_path_factory.mktemp("scenes")
    made = images("pocket", CaptionRequest(out=out, counts={"test": 12}, family={"test": 3}, level="easy"))
    kept = [one for one in made if all({"wide", "purple", "spotted"} - set(thing.marks) for thing in one.things)]
    assert len(kept) >= 8
    return out, kept


def img(scenes: tuple[Path, list[Sample]], number: int = 0, seed: int = 0, **changes: Any) -> CaptionTask:
    sample = replace(scenes[1][number], **changes)
    return CaptionTask(sample, scenes[0] / sample.image, seed, Counter())


def oracle(writer: Any = None, checker: Any = None, **more: Any) -> Helpers:
    return Helpers(writer or pocket.Teacher(), checker, encoder=encoders.load("pocket"), **more)


@pytest.mark.parametrize("name", captioning.names())
def test_every_strategy_writes_true_captions_of_every_scene(scenes: tuple[Path, list[Sample]], name: str) -> None:
    """With writer and checker that are never wrong. GIST tells marks of a kind, not thing by thing."""
    module = captioning.load(name)
    assert module.__doc__ and isinstance(module.NEEDS, tuple)
    out, samples = scenes
    helpers = oracle(checker=pocket.Teacher(), limits=CaptionLimits(marks=4))
    captioning.check_helpers(name, helpers, "pocket", "pocket")
    for sample in samples:
        made = captioning.write_captions(name, sample, out / sample.image, helpers, seed=3, variants=1, tries=1)
        again = captioning.write_captions(name, sample, out / sample.image, helpers, seed=3, variants=1, tries=1)
        assert made == again, "the same seed, the same words"
        if name == "gist":
            seen = {mark for thing in sample.things for mark in thing.marks}
            assert all(set(marks_of(caption, sample.entity)) <= seen for caption in made.captions)
            assert made.captions or made.refused in [("no mark of its class was seen",), ("too short",)]
            continue
        assert len(made.captions) == 1 and not made.refused
        found = judge(made.captions[0], [thing.marks for thing in sample.things])
        assert found.precision == 1.0
        assert found.recall == 1.0 or name in ("human", "blend"), "what was described is in the caption"


def marks_of(caption: str, entity: str) -> tuple[str, ...]:
    """The marks in a caption of strategy `gist`, which begins with the entity and its article."""
    found = re.fullmatch(rf"(?:An? )?{entity}(?:,| with|:) (.+)\.", caption, re.IGNORECASE)
    assert found is not None, caption
    return prose.parted(found[1])


@pytest.mark.parametrize("name", ["textualize", "iiw"])
def test_what_the_checker_does_not_see_is_dropped_and_counted(scenes: tuple[Path, list[Sample]], name: str) -> None:
    out, samples = scenes
    for sample in (replace(one, captions=()) for one in samples):
        lied = Liar().describe(CaptionTask(sample, out / sample.image, 0).look())
        assert judge(lied, [thing.marks for thing in sample.things]).precision < 1
        helpers = oracle(Liar(), pocket.Teacher())
        made = captioning.write_captions(name, sample, out / sample.image, helpers, seed=0, variants=1, tries=1)
        assert judge(made.captions[0], [thing.marks for thing in sample.things]).precision == 1.0
        assert made.notes["clauses dropped, not seen"] >= 1


@pytest.mark.parametrize("name", ["textualize", "iiw"])
def test_a_loop_that_only_adds_is_refused_before_it_starts(name: str) -> None:
    with pytest.raises(FieldmarkError, match=f"strategy '{name}' drops .*: name a checker with"):
        captioning.check_helpers(name, oracle(), "pocket", None)


def test_helpers_without_the_ability_are_refused_by_name() -> None:
    with pytest.raises(FieldmarkError, match="teacher 'cards' cannot look at images"):
        captioning.check_helpers("holistic", oracle(cards.Teacher()), "cards", None)
    with pytest.raises(FieldmarkError, match="'cards' cannot look at images"):
        captioning.check_helpers("blend", oracle(checker=cards.Teacher()), "pocket", "cards")
    captioning.check_helpers("blend", oracle(cards.Teacher()), "cards", None)
    with pytest.raises(UnknownNameError, match="Did you mean 'gist'"):
        captioning.load("gits")


def test_gist_keeps_the_class_and_takes_the_marks_that_fit(scenes: tuple[Path, list[Sample]]) -> None:
    one = img(scenes)
    seen = {mark for thing in one.sample.things for mark in thing.marks}
    helpers = oracle(
        cards=Cards({one.sample.entity: ["golden beak", *sorted(seen)[:2]]}), limits=CaptionLimits(marks=2)
    )
    message = {gist.write(img(scenes, seed=seed), helpers) for seed in range(4)}
    assert all(len(marks_of(caption, one.sample.entity)) == 2 for caption in message), "two marks, as the limit says"
    checked = gist.write(img(scenes), replace(helpers, checker=pocket.Teacher(), limits=CaptionLimits(marks=3)))
    assert "golden beak" not in checked


def test_gist_prefers_what_the_scorer_sees(scenes: tuple[Path, list[Sample]]) -> None:
    """Of all marks of a kind, those it takes without any checker are right more often than marks drawn blindly."""
    right = message = blind = 0
    for number, sample in enumerate(scenes[1]):
        seen = {mark for thing in sample.things for mark in thing.marks}
        known = pocket.Teacher().marks(sample.entity, sample.domain)
        caption = gist.write(img(scenes, number), oracle(limits=CaptionLimits(marks=4)))
        marks = marks_of(caption, sample.entity)
        right, message = right + sum(mark in seen for mark in marks), message + len(marks)
        blind += 4 * len(seen) / len(known)
    assert message == 4 * len(scenes[1]) and right > 1.3 * blind


def test_gist_says_what_it_lacks(scenes: tuple[Path, list[Sample]]) -> None:
    with pytest.raises(CaptionRejected, match="its class is not given"):
        gist.write(img(scenes, entity=""), oracle())
    with pytest.raises(CaptionRejected, match="no marks are known of its class"):
        gist.write(img(scenes, entity="gryphon"), oracle())
    with pytest.raises(KnowledgeError, match="no card for 'gryphon'"):
        gist.write(img(scenes, entity="gryphon"), oracle(cards=Cards({"bird": ["red"]})))

    class Mute:
        """A writer that knows nothing."""

    with pytest.raises(FieldmarkError, match="needs marks: give knowledge cards with --knowledge"):
        gist.write(img(scenes), oracle(Mute()))


def test_iiw_stops_when_a_round_adds_nothing_and_keeps_peoples_words(scenes: tuple[Path, list[Sample]]) -> None:
    person = scenes[1][0].captions[:1]
    one = img(scenes, captions=person)
    caption = iiw.write(one, oracle(checker=pocket.Teacher(), limits=CaptionLimits(rounds=3)))
    assert one.notes["rounds that added something"] == 1, "after one round the oracle has named every mark"
    assert set(words(person[0])) - {"and"} <= set(words(caption))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(0.0, 0.0, 0.6, 0.6), "large, at the top left"),
        (Box(0.45, 0.45, 0.55, 0.55), "small, in the middle"),
        (Box(0.7, 0.4, 1.0, 0.6), "at the right"),
        (Box(0.4, 0.8, 0.6, 1.0), "at the bottom"),
    ],
)
def test_places_in_words(box: Box, message: str) -> None:
    assert textualize.place(box) == message


def test_a_sentence_that_loses_a_clause_goes_on(scenes: tuple[Path, list[Sample]]) -> None:
    one = img(scenes)
    true = one.sample.things[0].marks[0]
    absent = next(mark for mark in ("round", "wide", "tall") if all(mark not in t.marks for t in one.sample.things))
    text = f"A {true} thing, {absent} and there. A {absent} thing. All is {true}."
    assert drop_unseen(one, (), text, None) == text, "without a checker nothing is dropped"
    assert drop_unseen(one, [text], text, pocket.Teacher()) == text, "what stood before is not asked again"

    class Words:
        """Sees a clause unless the absent mark is in it."""

        def sees(self, look: Look, marks: list[str]) -> tuple[bool, ...]:
            return tuple(absent not in mark for mark in marks)

        def describe(self, look: Look, *, seed: int = 0) -> str:
            return ""

    assert drop_unseen(one, (), text, Words()) == f"A {true} thing, there. All is {true}."
    assert one.notes["clauses dropped, not seen"] == 2
