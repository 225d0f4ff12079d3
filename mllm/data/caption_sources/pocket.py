"""Scenes of the pocket world with sparse captions of several people, in families of look-alikes.

No scene is on two sides: a family that holds a scene of another side is drawn again.
"""

import random
from collections.abc import Iterator

from mllm.boxes import Frame
from mllm.data.caption_sources import CaptionRequest
from mllm.errors import FieldmarkError
from mllm.io.images import save_image
from mllm.pocket.captions import sparse
from mllm.pocket.look_alikes import look_alikes
from mllm.pocket.species import NOUNS
from mllm.pocket.world import Scene
from mllm.records import SPLITS, Sample, Split, Thing

LICENCE = "CC0-1.0 (drawn by Fieldmark)"
QUESTION = "Describe this picture."
"""Uses only words for which the pocket model has tokens."""
_TRIES = 200


def images(request: CaptionRequest) -> Iterator[Sample]:
    """Draw and yield one family after the other: test, validation, training."""
    if request.voices < 1:
        raise FieldmarkError(f"a drawn image needs at least one caption, not {request.voices}")
    taken: set[object] = set()
    for side in reversed(SPLITS):  # the test first, so that a larger training set leaves it unchanged
        folder = request.out / "images" / side
        folder.mkdir(parents=True, exist_ok=True)
        size, wanted = request.family.get(side, 1), request.counts.get(side, 0)
        for number, start in enumerate(range(0, wanted, size)):
            for place, scene in enumerate(_family(request, side, number, min(size, wanted - start), taken)):
                key = f"{side}-{number:05d}-{place:02d}"
                save_image(scene.image, folder / f"{key}.png")
                bag = f"{side}-{number:05d}" if size > 1 else None
                yield _sample(request, side, key, bag, scene)


def _family(request: CaptionRequest, side: Split, number: int, size: int, taken: set[object]) -> tuple[Scene, ...]:
    """Draw look-alikes that are on no other side; a scene may occur again on its own side, as in any collection."""
    for attempt in range(_TRIES):
        seed = f"captions/{request.seed}/{side}/{number}/{attempt}"
        scenes = look_alikes(seed, size, request.level)
        keys = {(scene.domain, frozenset(thing.look for thing in scene.things)) for scene in scenes}
        if not any((side_of, key) in taken for key in keys for side_of in SPLITS if side_of != side):
            taken.update((side, key) for key in keys)
            return scenes
    raise FieldmarkError(
        f"{side}: {_TRIES} families of {size} look-alikes all hold a scene of another side; ask for fewer images"
    )


def _sample(request: CaptionRequest, side: Split, key: str, bag: str | None, scene: Scene) -> Sample:
    noun, marks = NOUNS[scene.domain], scene.marks
    voices = (random.Random(f"voice/{request.seed}/{key}/{k}") for k in range(request.voices))
    captions = [sparse(scene.domain, marks, voice) for voice in voices]
    return Sample(
        id=key,
        task="caption",
        image=f"images/{side}/{key}.png",
        size=Frame(*scene.image.size),
        domain=scene.domain,
        entity=noun,
        question=QUESTION,
        boxes=(),
        things=tuple(Thing(noun, thing.box, thing.marks) for thing in scene.things),
        captions=tuple(dict.fromkeys(captions)),
        bag=bag,
        split=side,
        drawn=True,
        licence=LICENCE,
        provenance={"source": "pocket"},
    )
