"""What the pocket base is taught: one right answer each, and never a way from a name to a place."""

from __future__ import annotations

import random

import pytest

from mllm.pocket import pretraining_tasks
from mllm.pocket.scene_store import training_scene
from mllm.pocket.species import species


@pytest.mark.ci
def test_no_task_leads_from_a_name_to_a_place() -> None:
    """The base must know a species and not be able to ground it: boxes never stand in a task that holds a species'
    name."""
    names = {one.name for one in species()}
    drawn = [training_scene(number, "test") for number in range(60)]
    for seed in range(480):
        number = seed % len(drawn)
        rng, scene = random.Random(seed), drawn[number]
        made = [
            pretraining_tasks.find_task(scene, number, rng),
            pretraining_tasks.reason_task(scene, number, rng),
            pretraining_tasks.reason_task(scene, number, rng, late=True),
            pretraining_tasks.at_task(scene, number, rng),
            pretraining_tasks.list_task(scene, number),
            pretraining_tasks.recall_task(rng, scene, number),
            pretraining_tasks.book_task(rng, scene, number),
            pretraining_tasks.judge_task(rng),
            pretraining_tasks.copy_task(rng),
        ]
        for task in made:
            named = any(name in task.question or name in task.answer for name in names)
            assert not (named and "(" in task.question + task.answer)


def test_judging_and_copying_tasks_have_one_right_answer() -> None:
    for number in range(200):
        judged = pretraining_tasks.judge_task(random.Random(number))
        assert judged.answer.startswith(judged.prefix) and ", ".join(judged.sought) in judged.prefix
        compared = judged.answer.removeprefix(judged.prefix).removesuffix(".</think>").strip().split(". ")
        fitting = [part for part in compared if part.endswith(", fits")]
        assert len(fitting) == 1
        each = ", ".join(f"{mark} fits" for mark in judged.sought)
        place, said = fitting[0].split(" ", 1)
        assert said == f"{each}, fits" and compared[-1] == f"So {place}"
        assert f"{place} {', '.join(judged.sought)}." in judged.question
        copied = pretraining_tasks.copy_task(random.Random(number))
        listed, asked = copied.question.split(" List ")
        order = asked.split(". ")[0].split()
        said, answer = copied.answer.removeprefix("<think>").split("</think>")
        boxes = [part.split(" ", 1) for part in said.rstrip(".").replace("So ", "").split(". ")]
        assert [place for place, _ in boxes] == order
        assert all(f"{place} {box}: " in listed for place, box in boxes)
        assert answer == f"<answer>{boxes[-1][1]}</answer>"


@pytest.mark.ci
def test_reasoned_tasks_hold_on_every_link() -> None:
    """The form is the oracle's, so that the links of a reasoning can be read off it; the head has no species' name, and
    is never learned to be said."""
    from mllm.boxes import Frame
    from mllm.metrics.reasoning import read_thought
    from mllm.models.families import load

    pocket, frame = load("pocket"), Frame(100, 100)
    for number in range(100):
        scene = training_scene(number, "test", 2 + number % 4)
        task = pretraining_tasks.reason_task(scene, number, random.Random(number), late=bool(number % 2))
        assert bool(task.prefix) == bool(number % 2) == ("with marks" not in task.question)
        said, answer = task.answer.removeprefix("<think>").split("</think>")
        thought = read_thought(said, pocket, frame)
        (target,) = [thing for thing in scene.things if thing.marks == task.sought]
        assert (thought.name, thought.recalled) == (("marks", target.marks) if number % 2 else ("", ()))
        assert [candidate.marks for candidate in thought.candidates] == [thing.marks for thing in scene.things]
        assert [candidate.fits for candidate in thought.candidates] == [thing is target for thing in scene.things]
        assert all(
            (mark in target.marks) == fits
            for candidate in thought.candidates
            for mark, fits in zip(candidate.marks, candidate.each, strict=True)
        )
        assert answer == f"<answer>{pretraining_tasks.write_box(target.box)}</answer>"
        choice = thought.choice()
        assert choice is not None and choice.fits and thought.restated == choice.numbers


def test_find_tasks_have_one_right_answer() -> None:
    drawn = [training_scene(number, "test", 4) for number in range(40)]
    for seed in range(240):
        number = seed % len(drawn)
        scene = drawn[number]
        task = pretraining_tasks.find_task(scene, number, random.Random(seed))
        if not task.question.startswith("Find"):
            continue
        asked = task.question.split(" with marks ")[1].split(". Answer")[0].split(", ")
        fitting = [thing for thing in scene.things if set(asked) <= set(thing.marks)]
        assert len(fitting) == 1
        assert task.answer == f"<answer>{pretraining_tasks.write_box(fitting[0].box)}</answer>"
