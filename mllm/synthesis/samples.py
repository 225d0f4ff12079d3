"""A line-up becomes one image and the samples asked about it: composed, asked, reasoned about, checked.

What fails a check is not repaired: `Refused` carries a short stable reason, and the caller draws another line-up.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.knowledge import domains
from mllm.models.families import Family
from mllm.prompting import questions
from mllm.prompting.questions import DESCRIPTION, SEVERAL
from mllm.records import Photo, QuestionKind, Sample, Split, Stratum, Thing
from mllm.synthesis import composites, thoughts
from mllm.synthesis.capabilities import ReasoningRequest, Reasons, TeacherError
from mllm.synthesis.lineups import LineUp

WHITE = (255, 255, 255)
GAPS = (0, 0, 6, 12)


class Refused(FieldmarkError):
    """An image that must not enter the data. The message is the reason, short and stable, to be counted."""


@dataclass(frozen=True, slots=True)
class Style:
    """How images are composed and questions worded."""

    family: Family
    """Its way to write boxes is tried on every thought."""
    plain: bool = False
    """No gaps, a canvas in the photos' own tone, and each domain's first wording only (for the pocket model)."""
    max_side: int = 1024
    """Longest side of an image, pixels."""
    min_box: int = 12
    """Shortest side that a thing's box may have, pixels."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A composed image: its pixels, and everything that questions about it share."""

    image: Image.Image
    size: Frame
    domain: str
    things: tuple[Thing, ...]
    """From left to right."""
    stratum: Stratum
    layout: str
    provenance: Mapping[str, Any]
    """The photos and their cells."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample belongs: its id, its image's name and path, and its side."""

    id: str
    image: str
    path: Path
    """Where the image lies already, for teachers that look at it."""
    split: Split


def compose(drawn: LineUp, folder: Path, style: Style, rng: random.Random) -> Scene:
    """Compose a line-up. `folder` is the one that the photos' paths are relative to.

    Raises:
        Refused: a thing's box is too small.
    """
    images = [open_image(folder / photo.image) for photo in drawn.photos]
    layout = rng.choice(composites.layouts_for(len(images)))
    gap = 0 if style.plain else rng.choice(GAPS)
    sizes = [image.size for image in images]
    placed = composites.arrange(layout, sizes, rng, max_side=style.max_side, gap=gap)
    edge = composites.edge_colour(images[0])
    colour = edge if style.plain else rng.choice((edge, WHITE))
    size = Frame(*placed.canvas)
    things = [
        Thing(photo.entity, box.inside(placed.window(index)), photo.marks)
        for index, photo in enumerate(drawn.photos)
        for box in photo.boxes
    ]
    things.sort(key=lambda thing: thing.box.center[0])  # reasoning goes from left to right
    if any(min(thing.box.width * size.width, thing.box.height * size.height) < style.min_box for thing in things):
        raise Refused("a box is too small")
    notes = {
        "photos": [photo.id for photo in drawn.photos],
        "cells": [[cell.x, cell.y, cell.x + cell.width, cell.y + cell.height] for cell in placed.cells],
    }
    pixels = composites.paste(images, placed, colour)
    return Scene(pixels, size, drawn.photos[0].domain, tuple(things), drawn.stratum, layout, notes)


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks questions about scenes: words them, has the teacher reason, checks."""

    teacher: Reasons
    cards: Mapping[str, tuple[str, ...]]
    style: Style
    seed: int

    def ask(
        self, scene: Scene, place: Place, target: Photo, kind: QuestionKind, *,
        refused: tuple[str, ...] = (), notes: Mapping[str, Any] | None = None,
    ) -> Sample:  # fmt: skip
        """Ask a question of a kind about a scene's target.

        `refused` lists why earlier attempts at the image were rejected; `notes` go into the sample's provenance.

        Raises:
            Refused: the teacher failed this once, the reasoning or its boxes fail a check, or no marks tell the target
                from the other things.
        """
        domain, rng = domains.load(scene.domain), random.Random(f"{self.seed}/{place.id}")
        asked = self._unique_marks(scene, target, rng) if kind == DESCRIPTION else ()
        sample = Sample(
            id=place.id,
            task="ground_all" if kind == SEVERAL else "ground",
            image=place.image,
            size=scene.size,
            domain=scene.domain,
            entity=target.entity,
            question=questions.question(domain, kind, target.entity, asked, rng, plain=self.style.plain),
            boxes=tuple(thing.box for thing in scene.things if thing.entity == target.entity),
            things=scene.things,
            split=place.split,
            seen=target.seen,
            group=place.image,
            kind=kind,
            stratum=scene.stratum,
            asked=asked,
            layout=scene.layout,
            drawn=target.drawn,
            refused=refused,
            provenance={**scene.provenance, **(notes or {})},
        )
        try:
            thought = self.teacher.reason(ReasoningRequest(sample, self.cards, self.seed, place.path))
        except TeacherError as error:
            raise Refused(f"teacher: {error.reason}") from error
        problem = thoughts.problem(sample, thought, self.cards)
        if problem:
            raise Refused(problem)
        _check_boxes(sample, thought, self.style.family)
        return replace(sample, thought=thought)

    def _unique_marks(self, scene: Scene, target: Photo, rng: random.Random) -> tuple[str, ...]:
        """Choose marks that only the target has: those visible where all are known, else those of the cards."""
        visible = all(thing.marks for thing in scene.things)
        others = [
            thing.marks if visible else self.cards[thing.entity]
            for thing in scene.things
            if thing.entity != target.entity
        ]
        asked = questions.telling(target.marks if visible else self.cards[target.entity], others, rng)
        if asked is None:
            raise Refused("no marks tell the target from the others")
        return asked


def _check_boxes(sample: Sample, thought: str, family: Family) -> None:
    """Write the thought as a model of this family would and read its boxes back: as many must come out as went in."""
    written = family.write_thought(thought, sample.things, family.frame(sample.size, family.budget))
    if len(family.read(written)) != thought.count("<obj:"):
        raise Refused("box text cannot be read back")
