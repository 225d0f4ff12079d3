"""The first stages of a data program: list the photos, fingerprint each, add boxes where there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from mllm.data import splits
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl
from mllm.records import Photo
from mllm.synthesis import pseudo_boxes
from mllm.synthesis.capabilities import Points
from mllm.synthesis.run import SynthesisRun


def list_photos(run: SynthesisRun[Any], listing: Callable[[], Iterator[Photo]]) -> list[Photo]:
    """List the photos in `photos.jsonl` and decode each once, so that a broken file is found now and not in an hour.

    Args:
        run: one process lists, which reads image headers only; all processes decode, each its share.
        listing: yields the photos, in the same order each time it is called; may raise.

    Returns:
        The photos with a fingerprint.
    """
    file = run.out / "photos.jsonl"
    headers = run.out / "listed.part.jsonl"  # named as unfinished: until photos.jsonl exists settings may change
    if not file.exists():
        run.list_rows(headers, lambda start: islice(listing(), start, None), "list of photos")
    photos = [] if file.exists() else list(read_jsonl(headers, Photo, unique="id"))
    found = run.map_rows(file, Photo, photos, lambda photo: _fingerprinted(photo, run.out), title="photos")
    if run.world.is_main:
        headers.unlink(missing_ok=True)
    run.world.barrier()
    return found


def add_boxes(
    run: SynthesisRun[Any],
    photos: Sequence[Photo],
    opinions: Callable[[], Sequence[Points]],
    *,
    seed: int,
    agreed_at: float,
) -> list[Photo]:
    """Let teachers point at what has no box; `boxes.jsonl` keeps the photos.

    Args:
        run: see `list_photos`.
        photos: with fingerprints, as `list_photos` returns them.
        opinions: loads the two teachers that point; called only if something is left to do.
        seed: seed of the teachers' requests.
        agreed_at: least IoU at which their boxes count as the same.

    Returns:
        All photos; those without a box give the reason in `rejected`.
    """
    file = run.out / "boxes.jsonl"
    if file.exists():
        return list(read_jsonl(file, Photo, unique="id"))
    first, second = opinions()

    def make(photo: Photo) -> Photo:
        found = pseudo_boxes.point(photo, run.out / photo.image, first, second, seed=seed, agreed_at=agreed_at)
        return _fingerprinted(found, run.out) if found.boxes and not photo.boxes else found

    return run.map_rows(file, Photo, photos, make, title="boxes")


def _fingerprinted(photo: Photo, out: Path) -> Photo:
    """Decode a photo and add its fingerprint."""
    prints = splits.fingerprint(open_image(out / photo.image), () if photo.drawn else photo.boxes)
    return replace(photo, fingerprint=tuple(prints))
