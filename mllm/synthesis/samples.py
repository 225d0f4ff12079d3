"""A line-up becomes one image and the samples asked about it: composed, asked, reasoned about, checked.

What fails a check is not repaired: `Refused` carries a short stable reason, and the caller draws another line-up.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.knowledge import domains
from mllm.models.families import Family
from mllm.prompting import questions
from mllm.prompting.questions import DESCRIPTION, SEVERAL
from mllm.records import Photo, Sample, Thing
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


def compose(drawn: LineUp, folder: Path, style: Style, rng: random.Random) -> tuple[Image.Image, Sample]:
    """Compose a line-up; returns the image and a sample that lacks its question (`entity`, `question`, `id` to come).

    `folder` is the one that the photos' paths are relative to.
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
    told = {
        "stratum": drawn.stratum,
        "layout": layout,
        "photos": [photo.id for photo in drawn.photos],
        "cells": [[cell.x, cell.y, cell.x + cell.width, cell.y + cell.height] for cell in placed.cells],
    }
    blank = Sample("?", "ground", "?", size, drawn.photos[0].domain, "?", "?", (), tuple(things), provenance=told)
    return composites.paste(images, placed, colour), blank


def ask(
    blank: Sample, target: Photo, kind: str, teacher: Reasons, cards: Mapping[str, tuple[str, ...]], style: Style,
    seed: int, image: Path | None = None,
) -> Sample:  # fmt: skip
    """Ask a composed image a question of a kind, have the teacher reason, check. `blank` has id, image and split.

    `image` is where the image lies already, for teachers that look.

    Raises:
        Refused: the teacher failed this once, the reasoning or its boxes fail a check, or no marks tell the target from
            the other things.
    """
    domain = domains.load(blank.domain)
    rng = random.Random(f"{seed}/{blank.id}")
    told, asked = {**blank.provenance, "kind": kind}, ()
    if kind == DESCRIPTION:
        asked = _unique_marks(blank, target, cards, rng)
        told["asked"] = list(asked)
    sample = replace(
        blank,
        task="ground_all" if kind == SEVERAL else "ground",
        entity=target.entity,
        question=questions.question(domain, kind, target.entity, asked, rng, plain=style.plain),
        boxes=tuple(thing.box for thing in blank.things if thing.entity == target.entity),
        seen=bool(target.provenance["seen"]),
        provenance=told,
    )
    try:
        thought = teacher.reason(ReasoningRequest(sample, cards, seed, image))
    except TeacherError as error:
        raise Refused(f"teacher: {error.reason}") from error
    problem = thoughts.problem(sample, thought, cards)
    if problem:
        raise Refused(problem)
    _check_boxes(sample, thought, style.family)
    return replace(sample, thought=thought)


def _unique_marks(
    blank: Sample, target: Photo, cards: Mapping[str, tuple[str, ...]], rng: random.Random
) -> tuple[str, ...]:
    """Choose marks that only the target has: those visible where all are known, else those of the cards."""
    visible = all(thing.marks for thing in blank.things)
    others = [
        thing.marks if visible else cards[thing.entity] for thing in blank.things if thing.entity != target.entity
    ]
    asked = questions.telling(target.marks if visible else cards[target.entity], others, rng)
    if asked is None:
        raise Refused("no marks tell the target from the others")
    return asked


def _check_boxes(sample: Sample, thought: str, family: Family) -> None:
    """Write the thought as a model of this family would and read its boxes back: as many must come out as went in."""
    written = family.write_thought(thought, sample.things, family.frame(sample.size, family.budget))
    if len(family.read(written)) != thought.count("<obj:"):
        raise Refused("box text cannot be read back")
