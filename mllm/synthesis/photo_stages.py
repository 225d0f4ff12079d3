"""The first stages of a data program: photos listed, each looked at once, and what has no box pointed at.

Every process of a world comes through here; whatever was done before is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mllm.data import splits
from mllm.distributed import World
from mllm.io.images import open_image
from mllm.io.progress import progress
from mllm.records import Photo, read_jsonl
from mllm.synthesis import pseudo_boxes
from mllm.synthesis.capabilities import Points
from mllm.synthesis.shards import Shards
from mllm.synthesis.stages import Stage, in_order


def listed(listing: Callable[[], Iterator[Photo]], out: Path, workers: int, world: World) -> list[Photo]:
    """List photos and open each once, whole, so that a broken file is found now and not in an hour.

    One process lists, which reads headers alone; all of them look, each at its share.

    Args:
        listing: yields the photos, in the same order each time it is called; may refuse them.
        out: folder that the photos' paths are relative to; `photos.jsonl` is written there.
        workers: threads of each process.
        world: the processes.

    Returns:
        The photos with a fingerprint among what is known of them.
    """
    headers = Stage(out / "listed.part.jsonl", Photo)  # no stage of its own: until photos.jsonl settings may change
    if world.is_main and not (out / "photos.jsonl").exists() and not headers.finished:
        with progress("list of photos", None, headers.done) as tick:
            for photo in islice(listing(), headers.done, None):
                headers.add(photo)
                tick()
        headers.close()
    shards = Shards(out / "photos.jsonl", world)
    if not shards.finished:
        photos = list(read_jsonl(headers.file, Photo, unique="id"))
        _each(shards, "photos", photos, lambda photo: _fingerprinted(photo, out), workers, world)
    if world.is_main:
        headers.file.unlink(missing_ok=True)
    world.barrier()
    return list(read_jsonl(out / "photos.jsonl", Photo, unique="id"))


def boxed(
    photos: Sequence[Photo],
    opinions: Callable[[], Sequence[Points]],
    out: Path,
    workers: int,
    world: World,
    *,
    seed: int,
    agreed_at: float,
) -> list[Photo]:
    """Point at what has no box; `boxes.jsonl` in `out` keeps the photos.

    Args:
        photos: with fingerprints, as `listed` returns them.
        opinions: loads the two that point; called only where something is left to do.
        out: see `listed`.
        workers: see `listed`.
        world: see `listed`.
        seed: of what the two are asked.
        agreed_at: least IoU at which their boxes are one.

    Returns:
        All photos; those without a box say why in their provenance (`pointing.FAULT`).
    """
    shards = Shards(out / "boxes.jsonl", world)
    if not shards.finished:
        first, second = opinions()

        def make(photo: Photo) -> Photo:
            found = pseudo_boxes.point(photo, out / photo.image, first, second, seed=seed, agreed_at=agreed_at)
            return _fingerprinted(found, out) if found.boxes and not photo.boxes else found

        _each(shards, "boxes", photos, make, workers, world)
    return list(read_jsonl(out / "boxes.jsonl", Photo, unique="id"))


def _each(
    shards: Shards, title: str, photos: Sequence[Photo], make: Callable[[Photo], Photo], workers: int, world: World
) -> None:
    """Make something of every photo that is not done yet, this process of its share, and join what all have made."""
    mine = world.shard([photo for photo in photos if photo.id not in shards.done])
    with progress(title, len(mine), world=world) as tick:
        for photo in in_order(make, mine, workers):
            shards.add(photo)
            tick()
    place = {photo.id: number for number, photo in enumerate(photos)}
    shards.close(place.__getitem__)


def _fingerprinted(photo: Photo, out: Path) -> Photo:
    """Look at a photo, whole."""
    prints = splits.fingerprint(open_image(out / photo.image), photo)
    return replace(photo, provenance={**photo.provenance, "fingerprint": prints})
