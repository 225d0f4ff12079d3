"""Pre-training tasks of the pocket base, and their order: to see, to point at marks, to know species from memory.

Every task is a question, perhaps with a scene, and the answer. No task leads from a species' name to a place: that link
is what fine-tuning has to build (the paper's "knows it, but cannot ground it").
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mllm.boxes import Box, Frame
from mllm.models.families import load
from mllm.pocket.species import DOMAINS, KIND_OF, NOUNS, Marks, Species, random_marks, sister_marks, sisters, species
from mllm.pocket.world import Scene, WorldThing
from mllm.prompting.prompts import STYLES
from mllm.prompting.questions import RECALLS

if TYPE_CHECKING:
    import numpy as np

_POCKET = load("pocket")
DIRECT_SUFFIX, THINK_SUFFIX = STYLES["direct"], STYLES["think"]


@dataclass(frozen=True, slots=True)
class PretrainingTask:
    """One question and its answer.

    ``scene`` is the number of the scene in view, None without one; ``target`` the index of the thing to point at;
    ``sought`` the marks that candidates are compared with; ``prefix`` the start of the answer that cannot be predicted:
    the model reads it, but it has no loss. ``photo`` is another image, after the scene: uint8, (height, width, 3).
    """

    question: str
    answer: str
    scene: int | None = None
    target: int | None = None
    sought: tuple[str, ...] = ()
    prefix: str = ""
    photo: np.ndarray | None = None


def write_box(box: Box) -> str:
    """Write a box in the pocket family's notation: hundredths, ``(x1,y1),(x2,y2)``."""
    return _POCKET.write_box(box, Frame(100, 100))


def card(one: Species) -> str:
    """Return what the base knows about a species: ``Talo ruvi: round, red, striped, blue cap.``"""
    return f"{one.name}: {', '.join(one.marks)}."


def unique_marks(things: Sequence[WorldThing], target: int, rng: random.Random) -> list[str] | None:
    """Return a random subset of the target's marks, in their usual order, that no other thing shares; None if another
    thing looks the same."""
    mine = things[target].marks
    for _ in range(12):
        chosen = sorted(rng.sample(range(4), rng.randint(1, 4)))
        if not any(all(other.marks[k] == mine[k] for k in chosen) for i, other in enumerate(things) if i != target):
            return [mine[k] for k in chosen]
    return None if any(other.marks == mine for i, other in enumerate(things) if i != target) else list(mine)


def find_task(scene: Scene, number: int, rng: random.Random, *, all_marks: bool = False) -> PretrainingTask:
    """Point at the one thing with these marks."""
    target = rng.randrange(len(scene.things))
    marks = list(scene.things[target].marks) if all_marks else unique_marks(scene.things, target, rng)
    if marks is None:
        return list_task(scene, number)
    question = f"Find the {NOUNS[scene.domain]} with marks {', '.join(marks)}. {DIRECT_SUFFIX}"
    return PretrainingTask(question, f"<answer>{write_box(scene.things[target].box)}</answer>", number, target)


def judged(marks: Sequence[str], sought: Sequence[str]) -> str:
    """Judge a candidate: its marks, a verdict on each whose kind is asked for, then one on the whole."""
    kinds = {KIND_OF.get(mark, "accent") for mark in sought}
    verdict = {True: "fits", False: "not"}
    each = (f"{m} {verdict[m in sought]}" if KIND_OF.get(m, "accent") in kinds else m for m in marks)
    return f"{', '.join(each)}, {verdict[set(sought) <= set(marks)]}"


def reason_task(scene: Scene, number: int, rng: random.Random, *, late: bool = False) -> PretrainingTask:
    """Go through all things, compare each mark by mark with the marks asked for, choose, point.

    This is reasoning about a description. What a named species looks like is never used: recalling first, and then
    reasoning from what was recalled, is left to fine-tuning. With ``late`` the description is not in the question but
    at the start of the thought, as if it had been recalled; it has no loss, so that no task trains to begin a thought
    by recalling.
    """
    target = rng.randrange(len(scene.things))
    sought = scene.things[target].marks
    if late:
        head = f"<think>marks: {', '.join(sought)}."
        question = f"Find the {NOUNS[scene.domain]}. {THINK_SUFFIX}"
        return PretrainingTask(question, f"{head} {concluded(scene, target)}", number, sought=sought, prefix=head)
    question = f"Find the {NOUNS[scene.domain]} with marks {', '.join(sought)}. {THINK_SUFFIX}"
    return PretrainingTask(question, f"<think>{concluded(scene, target)}", number, target, sought)


def concluded(scene: Scene, target: int) -> str:
    """Compare all things with the target's marks, left to right, choose it and answer with its box."""
    sought = scene.things[target].marks
    looked = " ".join(
        f"{place} {write_box(thing.box)}: {judged(thing.marks, sought)}." for place, thing in enumerate(scene.things, 1)
    )
    box = write_box(scene.things[target].box)
    return f"{looked} So {target + 1} {box}.</think><answer>{box}</answer>"


def book_task(rng: random.Random, scene: Scene | None = None, number: int | None = None) -> PretrainingTask:
    """Use cards that stand in the question: state one of them, or, in a scene, find the thing that it describes.

    The names are none of the world's, so that no card contradicts what is known by heart, and no way is taught from a
    known name to a place.
    """
    domain = rng.choice(DOMAINS) if scene is None else scene.domain
    if scene is None:
        looks = [look.look if isinstance(look, Species) else look for look in draw_looks(domain, 3, rng)]
        target = 0
    else:
        target = rng.randrange(len(scene.things))
        looks = [scene.things[target].look, *(thing.look for n, thing in enumerate(scene.things) if n != target)]
    shown = looks[: rng.randint(1, 3)]
    names = invented_names(len(shown), rng)
    book = [f"{name}: {', '.join(look.phrases(domain))}." for name, look in zip(names, shown, strict=True)]
    wanted = book[0]
    rng.shuffle(book)
    if scene is None:
        asked = rng.choice(RECALLS).format(name=names[0], noun=NOUNS[domain])
        return PretrainingTask(f"{' '.join(book)} {asked}", wanted)
    question = f"{' '.join(book)} Find the {NOUNS[domain]} {names[0]}."
    box = write_box(scene.things[target].box)
    if rng.random() < 0.5:
        return PretrainingTask(f"{question} {DIRECT_SUFFIX}", f"<answer>{box}</answer>", number, target)
    sought = scene.things[target].marks
    answer = f"<think>{concluded(scene, target)}"
    return PretrainingTask(f"{question} {THINK_SUFFIX}", answer, number, target, sought)


def invented_names(count: int, rng: random.Random) -> list[str]:
    """Join a genus and an epithet of the world to names that no species has; all differ."""
    known = {one.name for one in species()}
    names: list[str] = []
    while len(names) < count:
        genus, epithet = rng.choice(species()).genus, rng.choice(species()).name.split()[1]
        if (name := f"{genus} {epithet}") not in known and name not in names:
            names.append(name)
    return names


def at_task(scene: Scene, number: int, rng: random.Random) -> PretrainingTask:
    """Name the marks of the thing inside a box."""
    thing = rng.choice(scene.things)
    return PretrainingTask(f"What is at {write_box(thing.box)}?", f"{', '.join(thing.marks)}.", number)


def list_task(scene: Scene, number: int) -> PretrainingTask:
    """List everything in the scene, left to right: each thing's number, from 1, its box and its visible marks."""
    things = enumerate(scene.things, 1)
    listed = " ".join(f"{place} {write_box(thing.box)}: {', '.join(thing.marks)}." for place, thing in things)
    return PretrainingTask(f"List every {NOUNS[scene.domain]}.", listed, number)


def recall_task(rng: random.Random, scene: Scene | None = None, number: int | None = None) -> PretrainingTask:
    """State a species' marks from its name, possibly with an unrelated scene in view."""
    one = rng.choice(species(scene.domain if scene is not None and rng.random() < 0.7 else None))
    question = rng.choice(RECALLS).format(name=one.name, noun=NOUNS[one.domain])
    return PretrainingTask(question, card(one), number)


def judge_task(rng: random.Random) -> PretrainingTask:
    """Compare described things mark by mark with given marks, and say which one fits."""
    domain = rng.choice(DOMAINS)
    looks = draw_looks(domain, rng.randint(2, 5), rng)
    phrases = [look.marks if isinstance(look, Species) else look.phrases(domain) for look in looks]
    target = rng.randrange(len(phrases))
    sought = phrases[target]
    described = " ".join(f"{number} {', '.join(marks)}." for number, marks in enumerate(phrases, 1))
    compared = " ".join(f"{number} {judged(marks, sought)}." for number, marks in enumerate(phrases, 1))
    question = f"Tell which fits. {described}"
    head = f"<think>marks: {', '.join(sought)}."
    return PretrainingTask(question, f"{head} {compared} So {target + 1}.</think>", sought=sought, prefix=head)


def copy_task(rng: random.Random) -> PretrainingTask:
    """Repeat boxes of a list, by their numbers and in another order; the last one is the answer.

    The simplest use of earlier tokens; a reasoned answer ends like this: the choice, its box, the box again.
    """
    boxes = []
    for _ in range(rng.randint(2, 5)):
        x, y, width, height = rng.uniform(0, 0.7), rng.uniform(0, 0.7), rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.3)
        boxes.append(write_box(Box(x, y, x + width, y + height)))
    listed = " ".join(
        f"{number} {box}: {', '.join(random_marks(rng).phrases('bird'))}." for number, box in enumerate(boxes, 1)
    )
    order = *others, last = rng.sample(range(len(boxes)), len(boxes))
    others_copied = "".join(f"{index + 1} {boxes[index]}. " for index in others)
    return PretrainingTask(
        f"{listed} List {' '.join(str(index + 1) for index in order)}. {THINK_SUFFIX}",
        f"<think>{others_copied}So {last + 1} {boxes[last]}.</think><answer>{boxes[last]}</answer>",
    )


def draw_looks(domain: str, count: int, rng: random.Random) -> list[Marks | Species]:
    """Draw distinct looks for one scene: real species or any marks, often look-alikes of the previous one."""
    real = rng.random() < 0.5
    looks: list[Marks | Species] = []
    taken: set[Marks] = set()
    while len(looks) < count:
        near = bool(looks) and rng.random() < 0.5
        last = looks[-1] if near else None
        if real:
            one = rng.choice(sisters(last) if isinstance(last, Species) else species(domain))
        else:
            one = sister_marks(last, rng.choice((1, 2)), rng) if isinstance(last, Marks) else random_marks(rng)
        marks = one.look if isinstance(one, Species) else one
        if marks not in taken:
            taken.add(marks)
            looks.append(one)
    return looks
