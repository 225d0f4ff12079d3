"""A line-up becomes one image and the samples asked about it: composed, asked, reasoned about, checked.

What fails a check is not repaired: `SampleRejected` carries a short stable reason, and another line-up is drawn.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mllm.boxes import Frame
from mllm.errors import FieldmarkError
from mllm.io.images import open_image, save_image
from mllm.knowledge import domains
from mllm.knowledge.card_files import Card
from mllm.knowledge.cards import Cards
from mllm.models.families import Family
from mllm.prompting import questions
from mllm.prompting.questions import DESCRIPTION, NAME, NAMING, SEVERAL, Mixture
from mllm.records import PhotoThing, QuestionKind, Sample, Thing
from mllm.synthesis import composites, thoughts
from mllm.synthesis.capabilities import ReasoningRequest, Reasons, TeacherError
from mllm.synthesis.lineups import LineUp, Pool

WHITE = (255, 255, 255)
GAPS = (0, 0, 6, 12)
IMAGES_PER_FOLDER = 100_000
LETTERED = 4
"""Names in a question with letters."""
MOST_NAMES = 100
"""Names that are kept of an open question, those most alike first: an answer that gives two of them is refused."""


ThoughtChecks = Literal["all", "answer"]
"""`all`: every candidate is looked at and what is stated agrees with the card; `answer`: the conclusion alone."""


class SampleRejected(FieldmarkError):
    """An image that must not enter the data. The message is the reason, short and stable, to be counted."""


@dataclass(frozen=True, slots=True)
class CompositionStyle:
    """How images are composed and questions worded."""

    family: Family
    """Its way to write boxes is tried on every thought."""
    plain: bool = False
    """No gaps, a canvas in the photos' own tone, and each domain's first wording only (for the pocket model)."""
    max_side: int = 1024
    """Longest side of an image, pixels."""
    min_box: int = 12
    """Shortest side that a thing's box may have, pixels."""


def _whole_photo(drawn: LineUp) -> LineUp:
    """Return the target's photo alone, to be asked about as a whole; a scene shows other kinds, too, and stays."""
    own = [photo for photo in drawn.photos if drawn.targets[0] in photo.things]
    return drawn if own[0].is_scene else replace(drawn, photos=(own[0],))


@dataclass(frozen=True, slots=True)
class SampleMaker:
    """Makes the images of one side and their samples. Each depends on its own number only."""

    pool: Pool
    teacher: Reasons
    style: CompositionStyle
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
    checks: ThoughtChecks = "all"
    """What is checked of a thought."""
    max_tries: int = 20
    """Line-ups tried for one image; if all are rejected, something is wrong with the data or the settings."""

    def make(self, number: int) -> list[Sample]:
        """Write image `number` and return its samples. Raises FieldmarkError if `max_tries` line-ups were rejected."""
        refused: list[str] = []
        side = self.pool.side
        seed, name = f"{self.seed}/{side}", f"images/{side}/{image_name(number)}.{'png' if self.style.plain else 'jpg'}"
        draws = (random.Random(f"{seed}/{number}/kind/{k}") for k in range(self.questions))
        kinds: list[QuestionKind] = [self.mixture.draw(rng) for rng in draws]
        # Further questions are about an image that was composed for the first one.
        kinds[1:] = [kind if kind in (DESCRIPTION, NAMING) else NAME for kind in kinds[1:]]
        wanted: dict[str, Any] = {"sisters": self.look_alikes, "questions": self.questions, "kind": kinds[0]}
        for attempt in range(self.max_tries):
            rng = random.Random(f"{seed}/{number}/{attempt}")
            try:
                drawn = self.pool.draw(number, seed, rng, attempt=attempt, **wanted)
                if kinds[0] == NAMING and self.questions == 1 and rng.random() < 0.5:
                    drawn = _whole_photo(drawn)
                if len(drawn.targets) < self.questions:
                    raise SampleRejected("fewer things than questions")
                if DESCRIPTION in kinds and any(photo.crowds for photo in drawn.photos):
                    raise SampleRejected("a crowd may have the marks asked for")
                scene = self._compose(drawn, name, rng)
                found = []
                for place, target in enumerate(drawn.targets):
                    key = sample_id(side, number * self.questions + place)
                    found.append(self._ask(key, scene, target, kinds[place] if place else drawn.kind))
                # Only the first sample of an image lists the rejected line-ups, so that rows can be counted.
                return [replace(found[0], refused=tuple(refused)), *found[1:]]
            except SampleRejected as reason:
                refused.append(str(reason))
        raise FieldmarkError(
            f"{side}: {self.max_tries} line-ups for image {number} were rejected, the last because: {refused[-1]}."
            " Check --min-things, --max-things, --questions, --min-box and --max-side, use another teacher, or raise"
            " --max-tries"
        )

    def _compose(self, drawn: LineUp, name: str, rng: random.Random) -> dict[str, Any]:
        """Compose a line-up and save the image; return the fields that all its samples share.

        In a scene, things may be small as long as they are not asked for.
        """
        images, style = [open_image(self.out / photo.image) for photo in drawn.photos], self.style
        layout = rng.choice(composites.layouts_for(len(images)))
        gap = 0 if style.plain else rng.choice(GAPS)
        placed = composites.arrange(layout, [image.size for image in images], rng, max_side=style.max_side, gap=gap)
        edge = composites.edge_colour(images[0])
        colour = edge if style.plain else rng.choice((edge, WHITE))
        size = Frame(*placed.canvas)
        things = [
            Thing(thing.entity, thing.box.inside(placed.window(index)), thing.marks)
            for index, photo in enumerate(drawn.photos)
            for thing in photo.things
            if thing.box is not None
        ]
        things.sort(key=lambda thing: thing.box.center[0])  # reasoning goes from left to right
        asked = {target.entity for target in drawn.targets}
        looked = [thing for thing in things if layout != composites.SCENE or thing.entity in asked]
        if any(min(thing.box.width * size.width, thing.box.height * size.height) < style.min_box for thing in looked):
            raise SampleRejected("a box is too small")
        (self.out / name).parent.mkdir(parents=True, exist_ok=True)
        # Before the rows that name it, and for teachers that look at it.
        save_image(composites.paste(images, placed, colour), self.out / name)
        photos = [photo.id for photo in drawn.photos]
        cells = [[cell.x, cell.y, cell.x + cell.width, cell.y + cell.height] for cell in placed.cells]
        return {
            "image": name,
            "group": name,
            "size": size,
            "things": tuple(things),
            "split": self.pool.side,
            "stratum": drawn.stratum,
            "layout": layout,
            "drawn": drawn.photos[0].drawn,
            "provenance": {"photos": photos, "cells": cells, **self.provenance},
        }

    def _ask(self, key: str, scene: dict[str, Any], target: PhotoThing, kind: QuestionKind) -> Sample:
        """Ask a question about a target: word it, have the teacher reason, check. `key` is the sample's id."""
        rng, cards = random.Random(f"{self.seed}/{key}"), self.pool.cards
        ask = self._for_name if kind == NAMING else self._for_place
        sample = replace(ask(key, scene, target, kind, rng), seen=target.seen, kind=kind)
        try:
            thought = self.teacher.reason(ReasoningRequest(sample, cards, self.seed, self.out / sample.image))
        except TeacherError as error:
            raise SampleRejected(f"teacher: {error.reason}") from error
        checked = thoughts.problem(sample, thought, cards) if self.checks == "all" else None
        if problem := checked or thoughts.wrong_conclusion(sample, thought):
            raise SampleRejected(problem)
        # As a model of the family would write it: as many boxes must be read back as went in.
        family = self.style.family
        written = family.write_thought(thought, sample.things, family.frame(sample.size, family.budget))
        if len(family.read(written)) != thought.count("<obj:"):
            raise SampleRejected("box text cannot be read back")
        return replace(sample, thought=thought)

    def _for_place(
        self, key: str, scene: dict[str, Any], target: PhotoThing, kind: QuestionKind, rng: random.Random
    ) -> Sample:
        """Ask where a target is: by name, by marks, or for all of its kind."""
        domain, in_scene = domains.load(target.domain), scene["layout"] == composites.SCENE
        asked = self._unique_marks(scene["things"], target, rng) if kind == DESCRIPTION else ()
        return Sample(
            **scene,
            id=key,
            task="ground_all" if kind == SEVERAL else "ground",
            domain=target.domain,
            entity=target.entity,
            question=questions.question(
                domain, kind, target.entity, asked, rng, plain=self.style.plain, scene=in_scene
            ),
            boxes=tuple(thing.box for thing in scene["things"] if thing.entity == target.entity),
            asked=asked,
        )

    def _for_name(
        self, key: str, scene: dict[str, Any], target: PhotoThing, kind: QuestionKind, rng: random.Random
    ) -> Sample:
        """Ask what a target is: the whole photo, or the thing at a box; openly, or with names to choose from."""
        domain, cards, things = domains.load(target.domain), self.pool.cards, scene["things"]
        others, listed = self.pool.alternatives(target, rng), rng.random() < 0.5
        options = [target.entity, *others][: LETTERED if listed else MOST_NAMES]
        rng.shuffle(options)
        (place,) = (index for index, thing in enumerate(things) if thing.entity == target.entity)
        where = "this" if len(things) == 1 else f"at <obj:{place}>"
        which = 0 if self.style.plain else rng.randrange(len(questions.NAMINGS))
        card = cards.card(target.entity) if isinstance(cards, Cards) else Card(target.entity)
        return Sample(
            **scene,
            id=key,
            task="name",
            domain=target.domain,
            entity=target.entity,
            question=questions.naming(domain.noun, where, options if listed else (), which),
            boxes=(things[place].box,),
            options=tuple(options),
            genus=target.genus or card.genus or None,
            synonyms=card.synonyms,
        )

    def _unique_marks(self, things: Sequence[Thing], target: PhotoThing, rng: random.Random) -> tuple[str, ...]:
        """Choose marks that only the target has: those visible where all are known, else those of the cards."""
        visible = all(thing.marks for thing in things)
        others = [thing for thing in things if thing.entity != target.entity]
        asked = questions.telling(
            target.marks if visible else self.pool.cards[target.entity],
            [thing.marks if visible else self.pool.cards[thing.entity] for thing in others],
            rng,
        )
        if asked is None:
            raise SampleRejected("no marks tell the target from the others")
        return asked


def sample_id(side: str, number: int) -> str:
    """Return the id of a side's sample."""
    return f"{side}-{number:06d}"


def image_name(number: int) -> str:
    """Return the name of a side's image without suffix; from IMAGES_PER_FOLDER on, images are in numbered folders."""
    folder = number // IMAGES_PER_FOLDER
    return f"{f'{folder:04d}/' if folder else ''}{number:06d}"
