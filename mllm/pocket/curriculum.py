"""The order in which the pocket base is trained: one thing per image, then two, then everything."""

from __future__ import annotations

import random

from mllm.pocket import pretraining_tasks
from mllm.pocket.pretraining_tasks import PretrainingTask
from mllm.pocket.scene_store import SceneStore

SINGLES_UNTIL, PAIRS_UNTIL = 300, 1000
"""Until these steps, images show single things, and then at most two; both times with easy questions only."""


class Curriculum:
    """Draws the tasks of a step from a store of scenes."""

    def __init__(self, store: SceneStore) -> None:
        self.store = store
        self._by_count: dict[int, list[int]] = {}
        for number in range(len(store)):
            self._by_count.setdefault(len(store.scene(number).things), []).append(number)

    def images(self, step: int, count: int, rng: random.Random) -> list[PretrainingTask]:
        """Draw ``count`` tasks with a scene in view."""
        draw = self._easy if step < PAIRS_UNTIL else self._any
        return [draw(step, rng) for _ in range(count)]

    def texts(self, count: int, rng: random.Random) -> list[PretrainingTask]:
        """Draw ``count`` tasks of text alone: recalling species, comparing, copying."""
        kinds = (pretraining_tasks.recall_task, pretraining_tasks.judge_task, pretraining_tasks.copy_task)
        return [rng.choices(kinds, (0.2, 0.65, 0.15))[0](rng) for _ in range(count)]

    def _easy(self, step: int, rng: random.Random) -> PretrainingTask:
        things = 1 if step < SINGLES_UNTIL else rng.choice((1, 2, 2, 2))
        number = rng.choice(self._by_count[things])
        scene, kind = self.store.scene(number), rng.random()
        if kind < 0.15:
            return pretraining_tasks.at_task(scene, number, rng)
        if kind < 0.4:
            return pretraining_tasks.list_task(scene, number)
        return pretraining_tasks.find_task(scene, number, rng, all_marks=True)

    def _any(self, step: int, rng: random.Random) -> PretrainingTask:
        number = rng.randrange(len(self.store))
        scene, kind = self.store.scene(number), rng.random()
        if kind < 0.35:
            return pretraining_tasks.find_task(scene, number, rng, all_marks=kind < 0.17)
        if kind < 0.75:
            return pretraining_tasks.reason_task(scene, number, rng, late=kind < 0.60)
        if kind < 0.80:
            return pretraining_tasks.at_task(scene, number, rng)
        if kind < 0.88:
            return pretraining_tasks.list_task(scene, number)
        return pretraining_tasks.recall_task(rng, scene, number)
