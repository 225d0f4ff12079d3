"""Pre-training tasks with a second image (a crop, another photo) and with things too small to read at first sight."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from mllm.pocket.pretraining_tasks import DIRECT_SUFFIX, PretrainingTask, draw_looks, judged, list_task, write_box
from mllm.pocket.species import NOUNS, Marks, Species, sister_marks
from mllm.pocket.world import Scene, draw_photo

if TYPE_CHECKING:
    from mllm.pocket.scene_store import SceneStore


def spot_task(scene: Scene, number: int) -> PretrainingTask:
    """Give the boxes of all things of a wide scene; their marks cannot be read."""
    listed = " ".join(f"{place} {write_box(thing.box)}." for place, thing in enumerate(scene.things, 1))
    return PretrainingTask(f"Where is every {NOUNS[scene.domain]}?", listed, number)


def crop_task(store: SceneStore, number: int, rng: random.Random) -> PretrainingTask:
    """Read the marks of a small thing from its crop, after its scene or alone."""
    scene = store.scene(number)
    thing = rng.randrange(len(scene.things))
    marks, crop_HWC = f"{', '.join(scene.things[thing].marks)}.", store.crop_HWC(number, thing)
    wording = rng.randrange(3)
    if wording == 0:
        return PretrainingTask("What is in this image?", marks, photo=crop_HWC)
    box = write_box(scene.things[thing].box)
    question = f"What is at {box}?" if wording == 1 else "What is in the second image?"
    return PretrainingTask(question, marks, number, photo=crop_HWC)


def match_task(scene: Scene, number: int, rng: random.Random) -> PretrainingTask:
    """Point at the thing that looks like the one on a second photo."""
    target = rng.randrange(len(scene.things))
    question = f"Find the {NOUNS[scene.domain]} of the second image. {DIRECT_SUFFIX}"
    answer = f"<answer>{write_box(scene.things[target].box)}</answer>"
    photo_HWC = _photo_HWC(scene.domain, scene.things[target].look, rng)
    return PretrainingTask(question, answer, number, target, photo=photo_HWC)


def either_task(scene: Scene, number: int, rng: random.Random) -> PretrainingTask:
    """Say what the first or the second of two images shows."""
    look = _look(draw_looks(scene.domain, 1, rng)[0])
    photo_HWC = _photo_HWC(scene.domain, look, rng)
    if rng.random() < 0.5:
        listed = list_task(scene, number).answer
        question = f"List every {NOUNS[scene.domain]} in the first image."
        return PretrainingTask(question, listed, number, photo=photo_HWC)
    answer = f"{', '.join(look.phrases(scene.domain))}."
    return PretrainingTask("What is in the second image?", answer, number, photo=photo_HWC)


def same_task(scene: Scene, number: int, rng: random.Random) -> PretrainingTask:
    """Compare a scene of one thing with a photo of the same or of a similar look, mark by mark."""
    mine = scene.things[0].look
    other = mine if rng.random() < 0.4 else sister_marks(mine, rng.choice((1, 2)), rng)
    sought, marks = mine.phrases(scene.domain), other.phrases(scene.domain)
    answer = f"1 {', '.join(sought)}. 2 {judged(marks, sought)}."
    question = f"Is the {NOUNS[scene.domain]} the same in both?"
    return PretrainingTask(question, answer, number, sought=sought, photo=_photo_HWC(scene.domain, other, rng))


def _look(drawn: Marks | Species) -> Marks:
    return drawn.look if isinstance(drawn, Species) else drawn


def _photo_HWC(domain: str, look: Marks, rng: random.Random) -> np.ndarray:  # noqa: N802 - shape suffix
    return np.asarray(draw_photo(domain, look, rng)[0])
