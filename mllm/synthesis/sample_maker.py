"""The samples of one side, image by image: line-ups are drawn until one passes every check."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.io.images import save_image
from mllm.prompting.questions import Mixture
from mllm.records import QuestionKind, Sample
from mllm.synthesis import lineups, samples
from mllm.synthesis.capabilities import Reasons

MAX_TRIES = 20
"""Line-ups tried for one image; if all are rejected, something is wrong with the data or the settings."""
IMAGES_PER_FOLDER = 100_000


@dataclass(frozen=True, slots=True)
class SampleMaker:
    """Makes the images of one side and their samples. Each depends on its own number only."""

    pool: lineups.Pool
    teacher: Reasons
    style: samples.Style
    out: Path
    """Output folder; photos, images and samples are relative to it."""
    seed: int
    look_alikes: float
    """Share of distractors that are look-alikes of the target, 0..1."""
    questions: int
    """Questions asked about each image."""
    mixture: Mixture
    provenance: Mapping[str, Any]
    """Further provenance of every sample."""

    def make(self, number: int) -> list[Sample]:
        """Write image `number` and return its samples, trying other line-ups when one is rejected.

        Raises:
            FieldmarkError: MAX_TRIES line-ups were rejected; names the last reason.
        """
        refused: list[str] = []
        seed = f"{self.seed}/{self.pool.side}"
        kinds: list[QuestionKind] = [
            self.mixture.draw(random.Random(f"{seed}/{number}/kind/{k}")) for k in range(self.questions)
        ]
        for attempt in range(MAX_TRIES):
            rng = random.Random(f"{seed}/{number}/{attempt}")
            try:
                drawn = self.pool.draw(
                    number, seed, rng, sisters=self.look_alikes, questions=self.questions, kind=kinds[0]
                )
                if len(drawn.targets) < self.questions:
                    raise samples.Refused("fewer things than questions")
                return self._ask(number, drawn, kinds, rng, refused)
            except samples.Refused as reason:
                refused.append(str(reason))
        raise FieldmarkError(
            f"{self.pool.side}: {MAX_TRIES} line-ups for image {number} were rejected, the last because: {refused[-1]}."
            " Check --min-things, --max-things, --questions, --min-box and --max-side, or use another teacher"
        )

    def _ask(
        self, number: int, drawn: lineups.LineUp, kinds: list[QuestionKind], rng: random.Random, refused: list[str]
    ) -> list[Sample]:
        """Compose the image, save it and ask every question about it. Raises Refused."""
        side = self.pool.side
        suffix = "png" if self.style.plain else "jpg"
        name = f"images/{side}/{image_name(number)}.{suffix}"
        scene = samples.compose(drawn, self.out, self.style, rng)
        (self.out / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(scene.image, self.out / name)  # before the rows that name it, and for teachers that look at it
        asker, found = samples.Asker(self.teacher, self.pool.cards, self.style, self.seed), []
        for place, target in enumerate(drawn.targets):
            # Only the first sample of an image lists the rejected line-ups, so that rows can be counted.
            key = sample_id(side, number * self.questions + place)
            kind = drawn.kind if place == 0 else lineups.further(kinds[place])
            where = samples.Place(key, name, self.out / name, side)
            reasons = () if place else tuple(refused)
            found.append(asker.ask(scene, where, target, kind, refused=reasons, notes=self.provenance))
        return found


def sample_id(side: str, number: int) -> str:
    """Return the id of a side's sample."""
    return f"{side}-{number:06d}"


def image_name(number: int) -> str:
    """Return the name of a side's image without suffix; from IMAGES_PER_FOLDER on, images are in numbered folders."""
    folder = number // IMAGES_PER_FOLDER
    return f"{f'{folder:04d}/' if folder else ''}{number:06d}"
