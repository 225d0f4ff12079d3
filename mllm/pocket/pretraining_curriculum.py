"""The order of the pre-training tasks: one thing per image, then two, then everything; beside them text."""

import random

from mllm.pocket.pretraining_tasks import (
    PretrainingTask,
    at_task,
    book_task,
    copy_task,
    find_task,
    judge_task,
    list_task,
    reason_task,
    recall_task,
)
from mllm.pocket.pretraining_views import crop_task, either_task, match_task, same_task, spot_task
from mllm.pocket.scene_store import SceneStore

SINGLES_UNTIL, PAIRS_UNTIL = 300, 1000
"""Until these steps, images show single things, and then at most two; both times with easy questions only."""
IMAGE_SHARES = {
    "find by all marks": 0.15,
    "find by some marks": 0.14,
    "reason, marks in the question": 0.13,
    "reason, marks in the thought": 0.19,
    "at a box": 0.04,
    "list": 0.05,
    "recall": 0.08,
    "book": 0.06,
    "crop": 0.06,
    "spot": 0.02,
    "match": 0.03,
    "same": 0.02,
    "either": 0.03,
}
"""Shares of the tasks with images after the easy ones."""
TEXT_SHARES = {"recall": 0.18, "judge": 0.65, "copy": 0.12, "book": 0.05}
"""Shares of the tasks of text alone."""


class Curriculum:
    """Draws the tasks of a step from a store of scenes."""

    def __init__(self, store: SceneStore) -> None:
        self.store = store
        self._by_count: dict[int, list[int]] = {}
        for number in store.regular:
            self._by_count.setdefault(len(store.scene(number).things), []).append(number)

    def images(self, step: int, count: int, rng: random.Random) -> list[PretrainingTask]:
        """Draw ``count`` tasks with a scene in view."""
        draw = self._easy if step < PAIRS_UNTIL else self._any
        return [draw(step, rng) for _ in range(count)]

    def texts(self, count: int, rng: random.Random) -> list[PretrainingTask]:
        """Draw ``count`` tasks of text alone: recalling species, comparing, copying, reading cards."""
        kinds = {"recall": recall_task, "judge": judge_task, "copy": copy_task, "book": book_task}
        return [kinds[rng.choices(list(TEXT_SHARES), list(TEXT_SHARES.values()))[0]](rng) for _ in range(count)]

    def _easy(self, step: int, rng: random.Random) -> PretrainingTask:
        things = 1 if step < SINGLES_UNTIL else rng.choice((1, 2, 2, 2))
        number = rng.choice(self._by_count[things])
        scene, kind = self.store.scene(number), rng.random()
        if kind < 0.15:
            return at_task(scene, number, rng)
        if kind < 0.4:
            return list_task(scene, number)
        return find_task(scene, number, rng, all_marks=True)

    def _any(self, step: int, rng: random.Random) -> PretrainingTask:
        kind = rng.choices(list(IMAGE_SHARES), list(IMAGE_SHARES.values()))[0]
        if kind == "crop":
            return crop_task(self.store, rng.choice(self.store.wide), rng)
        if kind == "spot":
            number = rng.choice(self.store.wide)
            return spot_task(self.store.scene(number), number)
        number = rng.choice(self._by_count[1]) if kind == "same" else rng.choice(self.store.regular)
        scene = self.store.scene(number)
        tasks = {
            "find by all marks": lambda: find_task(scene, number, rng, all_marks=True),
            "find by some marks": lambda: find_task(scene, number, rng),
            "reason, marks in the question": lambda: reason_task(scene, number, rng),
            "reason, marks in the thought": lambda: reason_task(scene, number, rng, late=True),
            "at a box": lambda: at_task(scene, number, rng),
            "list": lambda: list_task(scene, number),
            "recall": lambda: recall_task(rng, scene, number),
            "book": lambda: book_task(rng, scene, number),
            "match": lambda: match_task(scene, number, rng),
            "same": lambda: same_task(scene, number, rng),
            "either": lambda: either_task(scene, number, rng),
        }
        return tasks[kind]()
