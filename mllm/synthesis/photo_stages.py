"""The first stages of a data program: list the photos, fingerprint each, let teachers point where there is no box.

A teacher's box is used only if two opinions agree: those of two teachers, or of one with two seeds. DeepPerception used
one model's single answer (arXiv 2503.12797, appendix B.1); agreement can be checked without human annotation.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.boxes import iou
from mllm.data import manifest, splits
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl
from mllm.records import SPLITS, Photo, Sample
from mllm.synthesis.capabilities import Look, Points
from mllm.synthesis.run import SynthesisRun

AGREED_AT = 0.7
"""Least IoU at which two answers agree."""
NOTHING, MANY, APART = "no box was found", "more than one box was found", "two opinions disagree"


def list_photos(run: SynthesisRun[Any], listing: Callable[[], Iterator[Photo]]) -> list[Photo]:
    """List the photos in `photos.jsonl` with a fingerprint; each is decoded once, so that a broken file is found now.

    `listing` yields the photos in the same order each time it is called; only the main process calls it.
    """
    file = run.out / "photos.jsonl"
    headers = run.out / "listed.part.jsonl"  # named as unfinished: until photos.jsonl exists settings may change
    if not file.exists():
        run.list_rows(headers, listing(), "list of photos")
    photos = [] if file.exists() else list(read_jsonl(headers, Photo, unique="id"))
    found = run.map_rows(file, Photo, photos, lambda photo: _fingerprinted(photo, run.out), title="photos")
    if run.world.is_main:
        headers.unlink(missing_ok=True)
    run.world.barrier()
    return found


def add_boxes(
    run: SynthesisRun[Any],
    photos: Sequence[Photo],
    opinions: Callable[[], tuple[Points, Points]],
    *,
    seed: int,
    agreed_at: float,
) -> tuple[list[Photo], Counter[str]]:
    """Let two teachers point at what has no box (see `point`); `boxes.jsonl` keeps the photos.

    `opinions` loads the teachers; it is called only if something is left to do. Returns the photos all of whose things
    have a box, and why the others were rejected.
    """
    file = run.out / "boxes.jsonl"
    if file.exists():
        found = list(read_jsonl(file, Photo, unique="id"))
    else:
        first, second = opinions()

        def make(photo: Photo) -> Photo:
            boxed = point(photo, run.out / photo.image, first, second, seed=seed, agreed_at=agreed_at)
            return _fingerprinted(boxed, run.out) if boxed.boxes != photo.boxes else boxed

        found = run.map_rows(file, Photo, photos, make, title="boxes")
    without = Counter(str(photo.rejected) for photo in found if len(photo.boxes) < len(photo.things))
    return [photo for photo in found if len(photo.boxes) == len(photo.things)], without


def point(
    photo: Photo, image: Path, first: Points, second: Points, *, seed: int = 0, agreed_at: float = AGREED_AT
) -> Photo:
    """Return the photo with the first answer's boxes, or unchanged and with the reason in `rejected`.

    Things with a box keep it. `second` may be `first`: it is asked with another seed.
    """
    things, agreement = list(photo.things), 1.0
    for place, thing in enumerate(things):
        if thing.box is not None:
            continue
        look = Look(image, thing.domain, facts=thing.marks)
        found, again = first.point(look, thing.entity, seed=seed), second.point(look, thing.entity, seed=seed + 1)
        if not found or not again:
            return replace(photo, rejected=NOTHING)
        if max(len(found), len(again)) > 1:
            return replace(photo, rejected=MANY)
        agreement = min(agreement, iou(found[0], again[0]))
        if agreement < agreed_at:
            return replace(photo, rejected=APART)
        things[place] = replace(thing, box=found[0])
    if things == list(photo.things):
        return photo
    provenance = {**photo.provenance, "box": "teacher", "agreement": round(agreement, 4)}
    return replace(photo, things=tuple(things), provenance=provenance)


def _fingerprinted(photo: Photo, out: Path) -> Photo:
    prints = splits.fingerprint(open_image(out / photo.image), () if photo.drawn else photo.boxes)
    return replace(photo, fingerprint=tuple(prints))


def count_facts(out: Path, split: splits.PhotoSplit, left_out: Counter[str]) -> dict[str, Any]:
    """Count what was made, left out and rejected, and list the licences: the manifest's facts."""
    counts = {side: manifest.tally(read_jsonl(out / f"{side}.jsonl", Sample)) for side in SPLITS}
    refused = sum((refusals for _, refusals in counts.values()), Counter())
    return {
        "samples": {side: numbers for side, (numbers, _) in counts.items()},
        "photos": dict(sorted(Counter(str(photo.split) for photo in split.photos).items())),
        "groups of near-duplicate photos": split.groups_joined,
        "photos left out": dict(sorted((split.left_out + left_out).items())),
        "line-ups tried": sum(numbers["images"] for numbers, _ in counts.values()) + refused.total(),
        "line-ups refused": dict(sorted(refused.items())),
        "licences": dict(sorted(Counter(photo.licence or "not stated" for photo in split.photos).items())),
    }
