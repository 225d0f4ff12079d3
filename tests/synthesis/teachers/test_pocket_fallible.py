"""The fallible teacher errs as its settings say, and its data keeps the truth in validation and test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mllm.errors import ConfigError
from mllm.pocket.species import find, species
from mllm.records import Sample
from mllm.synthesis import consistency, thoughts
from mllm.synthesis.capabilities import ReasoningRequest
from mllm.synthesis.teachers import load
from mllm.synthesis.teachers.pocket_fallible import MISREAD
from tests.support.synthesis import make, samples
from tests.synthesis.teachers.test_pocket import _sample

NEVER = {"hasty": 0.0, "blind": 0.0, "wrong": 0.0}


def _scenes(count: int) -> list[Sample]:
    birds = species("bird")
    return [_sample([birds[(3 * k + i) % 30].name for i in range(3)], birds[3 * k % 30].name) for k in range(count)]


def _thoughts(count: int = 10, seeds: int = 40, **settings: float) -> list[tuple[Sample, str]]:
    teacher = load("pocket_fallible", **NEVER | settings)
    pairs = [(sample, seed) for sample in _scenes(count) for seed in range(seeds)]
    return [(sample, teacher.reason(ReasoningRequest(sample, {}, seed))) for sample, seed in pairs]


def test_without_errors_it_is_the_oracle() -> None:
    oracle = load("pocket")
    for sample, thought in _thoughts(seeds=1):
        assert thought == oracle.reason(ReasoningRequest(sample, {}, 0))


def test_a_hasty_thought_recalls_and_concludes() -> None:
    found = _thoughts(hasty=0.5)
    hasty = [(sample, thought) for sample, thought in found if "1 <obj" not in thought.split(" So ")[0]]
    assert 0.42 < len(hasty) / len(found) < 0.58
    for sample, thought in hasty:
        assert re.fullmatch(rf"{sample.entity}: {', '.join(find(sample.entity).marks)}\. So \d <obj:\d>\.", thought)
        assert thoughts.wrong_conclusion(sample, thought) is None
        assert thoughts.problem(sample, thought) == "a candidate was not looked at"


def test_blind_spots_are_misread_at_their_rate_and_nothing_else_is() -> None:
    misread = {True: 0, False: 0}
    for sample, thought in _thoughts(blind=0.65):
        for number, marks in re.findall(r"\d <obj:(\d)>: ([^.]*), (?:fits|not)\.", thought):
            stated = [re.sub(r" (?:fits|not)$", "", mark) for mark in marks.split(", ")]
            for true, said in zip(find(sample.things[int(number)].entity).marks, stated, strict=True):
                first, *part = true.split()
                if first in MISREAD:
                    assert said in (true, " ".join((MISREAD[first], *part)))
                    misread[said != true] += 1
                else:
                    assert said == true
    assert 0.6 < misread[True] / sum(misread.values()) < 0.7


def test_wrong_comparisons_are_verdicts_that_deny_what_stands_beside_them() -> None:
    wrong = total = 0
    for sample, thought in _thoughts(wrong=0.05):
        sought = find(sample.entity).marks
        for mark, verdict in re.findall(r"(?:: |, )(\w+(?: cap)?) (fits|not)", thought):
            wrong += (mark in sought) != (verdict == "fits")
            total += 1
        for look in re.findall(r"<obj:\d>: ([^.]*)\.", thought):
            *each, whole = re.findall(r"\b(fits|not)\b", look)
            assert whole == ("fits" if set(each) == {"fits"} else "not"), "it follows from the verdicts"
    assert total == 12 * 400 and 0.04 < wrong / total < 0.06


def test_the_card_check_finds_what_the_answer_check_lets_through() -> None:
    cards = {one.name: one.marks for one in species("bird")}
    caught = 0
    for sample, thought in _thoughts(blind=0.65):
        if thoughts.wrong_conclusion(sample, thought) is None:
            target = next(k for k, thing in enumerate(sample.things) if thing.entity == sample.entity)
            look = re.search(rf"<obj:{target}>: ([^.]*)\.", thought)
            assert look is not None
            misread = any(f"{mark} " not in f"{look[1]} " for mark in find(sample.entity).marks)
            assert bool(consistency.contradictions(sample, thought, cards)) == misread
            caught += misread
    assert caught > 20


def test_settings_are_probabilities() -> None:
    with pytest.raises(ConfigError, match="hasty: Input should be less than or equal to 1"):
        load("pocket_fallible", hasty=1.5)


@pytest.mark.ci
def test_training_data_is_the_teachers_and_the_rest_is_the_oracles(tmp_path: Path) -> None:
    small = ["--train=24", "--validation=8", "--test=8", "--photos-per-entity=4", "--domain=bird"]
    make(tmp_path / "all", *small, "--teacher=pocket_fallible", "--thought-checks=answer")
    make(tmp_path / "truth", *small)
    ours, oracles = samples(tmp_path / "all"), samples(tmp_path / "truth")
    assert {(row.split, row.provenance["teacher"]) for row in ours} == {
        ("train", "pocket_fallible"), ("validation", "pocket"), ("test", "pocket"),
    }  # fmt: skip
    held_out = [row for row in ours if row.split != "train"]
    assert held_out == [row for row in oracles if row.split != "train"]
    unsound = [row for row in ours if row.thought and thoughts.problem(row, row.thought)]
    assert 5 <= len(unsound) <= 19 and {row.split for row in unsound} == {"train"}
    make(tmp_path / "checked", *small, "--teacher=pocket_fallible", "--max-tries=500")
    assert not any(row.thought and thoughts.problem(row, row.thought) for row in samples(tmp_path / "checked"))
