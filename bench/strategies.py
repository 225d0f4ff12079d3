"""What a checker prevents: every caption strategy on pocket scenes, with a writer that invents things.

    python -m bench.strategies                # 200 scenes, a minute on one core

The writer is the pocket oracle, but every second description ends with a thing that is not there. The checker is the
unchanged oracle. Printed: the share of scenes with an accepted caption, the precision and recall of the captions'
claims, and their length. Claims of `gist` are marks of any thing of the scene.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mllm.captions import words
from mllm.cli.programs import Range, parse, run_program
from mllm.data import caption_sources
from mllm.io.tables import markdown
from mllm.models import encoders
from mllm.pocket.captions import judge, rich
from mllm.pocket.species import random_marks
from mllm.records import Sample
from mllm.synthesis import captioning
from mllm.synthesis.capabilities import Look
from mllm.synthesis.captioning import CaptionLimits, Helpers
from mllm.synthesis.teachers.pocket import Teacher


class Inventor(Teacher):
    """The oracle with a flaw: every second description, by seed and place, adds a thing that is not there."""

    def describe(self, look: Look, *, seed: int = 0) -> str:
        """Describe, and perhaps invent."""
        text, rng = super().describe(look, seed=seed), random.Random(f"{look.image.name}/{look.box}/{seed}")
        return f"{text} {rich(look.domain, [random_marks(rng).phrases(look.domain)])}" if rng.random() < 0.5 else text


def measure(name: str, checked: bool, scenes: Sequence[Sample], folder: Path, seed: int = 0) -> list[str]:
    """Return a row of the table: strategy, checker, scenes accepted, precision, recall, words."""
    helpers = Helpers(
        Inventor(), Teacher() if checked else None, encoder=encoders.load("pocket"), limits=CaptionLimits(marks=4)
    )
    found = []
    for sample in scenes:
        made = captioning.write_captions(name, sample, folder / sample.image, helpers, seed=seed, variants=1, tries=1)
        found += [(*judged(name, caption, sample), len(words(caption))) for caption in made.captions]
    means = [sum(column) / max(len(found), 1) for column in zip(*found, strict=True)] or [0.0] * 3
    return [
        name, "the oracle" if checked else "none", f"{100 * len(found) / len(scenes):.0f} %",
        f"{100 * means[0]:.1f} %", f"{100 * means[1]:.1f} %", f"{means[2]:.1f}",
    ]  # fmt: skip


def judged(name: str, caption: str, sample: Sample) -> tuple[float, float]:
    """Return precision and recall of a caption's claims, 0..1."""
    things = [thing.marks for thing in sample.things]
    if name != "gist":
        found = judge(caption, things)
        return found.precision, found.recall
    claimed, there = (
        set(caption.removesuffix(".").partition(": ")[2].split(", ")),
        {mark for one in things for mark in one},
    )
    return len(claimed & there) / len(claimed), len(claimed & there) / len(there)


@dataclass(frozen=True)
class Options:
    count: Annotated[int, Range(1)] = 200
    """scenes"""


def main(argv: list[str] | None = None) -> None:
    """Compare the strategies."""
    options = parse(Options, argv)
    head = ["strategy", "who looks", "taken", "true", "named", "words"]
    with tempfile.TemporaryDirectory() as folder:
        request = caption_sources.CaptionRequest(
            out=Path(folder), counts={"test": options.count}, family={"test": 5}, level="medium"
        )
        scenes = list(caption_sources.images("pocket", request))
        rows = [measure(name, look, scenes, Path(folder)) for name in captioning.names() for look in (False, True)]
    print(markdown([head, *rows]))


if __name__ == "__main__":
    run_program(main)
