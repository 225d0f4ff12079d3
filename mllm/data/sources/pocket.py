"""Labelled photos of the pocket world, drawn into files: every species, with its marks and its one box.

`PhotoThing.use` is the side the world assigns a species to. A species of the training set is drawn `photos_per_entity`
times, since its photos are divided among three sides; any other a third as often.
"""

from collections.abc import Iterator

from mllm.boxes import Frame
from mllm.data.sources import PhotoRequest
from mllm.io.images import save_image
from mllm.records import Photo, PhotoThing

LICENCE = "CC0-1.0 (drawn by Fieldmark)"


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Draw and yield the photos of every species, or of one domain if the request names one."""
    from mllm.pocket import world  # a ring above: the world is drawn, its records are ours
    from mllm.pocket.species import species

    folder = request.out / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    for one in species(request.domain):
        count = request.photos_per_entity if one.use == "train" else max(2, request.photos_per_entity // 3)
        for number in range(count):
            name = f"{one.name.replace(' ', '_')}-{number:03d}"
            image, box = world.photo(one, request.seed * 100_000 + number)
            save_image(image, folder / f"{name}.png")
            yield Photo(
                id=name,
                image=f"photos/{name}.png",
                size=Frame(*image.size),
                things=(PhotoThing(one.name, one.domain, box, one.marks, one.genus, one.use),),
                licence=LICENCE,
                drawn=True,
                provenance={"source": "pocket"},
            )
