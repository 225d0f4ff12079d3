"""Labelled photos looked at before anything is made of them: all that is wrong at once, and who may be seen where.

What ends a synthesis at its first fault (`data_synth/grounding.py`) is collected here, so that a folder of hundreds is
mended in one go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mllm.boxes import Box, Frame
from mllm.data import sources, splits
from mllm.data.sources import PhotoRequest, SourceError
from mllm.data.splits import Shares
from mllm.errors import FieldmarkError, ImageError
from mllm.io import images
from mllm.knowledge import cards as knowledge
from mllm.knowledge import domains
from mllm.records import SPLITS, Photo


@dataclass(slots=True)
class Check:
    """What was found: photos that can be used, and a line for each fault."""

    photos: list[Photo] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    alike: list[list[str]] = field(default_factory=list)
    """Ids of photos that look the same, group by group."""
    split: list[Photo] = field(default_factory=list)
    """The photos with their sides, as a synthesis with the same seed and shares would divide them."""


def check(source: str, request: PhotoRequest, cards: knowledge.Cards | None, shares: Shares, seed: int) -> Check:
    """Open every photo whole, look for its card and for photos like it, and divide the good ones among the sides.

    Raises:
        FieldmarkError: the input as a whole cannot be read: no such folder, a table without the needed columns.
    """
    found = Check()
    prints: list[list[str]] = []
    spelled: dict[str, str] = {}
    wrong = replace(request, on_error=lambda error: found.wrong.append(str(error)))
    for photo in sources.photos(source, wrong):
        if fault := "; ".join(label_faults(photo, cards, spelled, marks=False)):
            found.wrong.append(fault)
            continue
        try:
            image = images.load(request.out / photo.image)
        except ImageError as error:
            found.wrong.append(str(error))
            continue
        prints.append(splits.fingerprint(image, photo))
        found.photos.append(photo)
    if not found.photos:
        first = f"; the first of {len(found.wrong)} faults: {found.wrong[0]}" if found.wrong else ""
        raise SourceError(f"{request.input or source}: no photo can be used{first}")
    groups: dict[int, list[str]] = {}
    for photo, group in zip(found.photos, splits.near_duplicates(prints), strict=True):
        groups.setdefault(group, []).append(photo.id)
    found.alike = [ids for ids in groups.values() if len(ids) > 1]
    found.split = splits.split(found.photos, prints, shares, seed).photos
    return found


def lacking(found: Check) -> Iterator[str]:
    """Say which side has too few kinds: an image shows two at least, each with one box."""
    for side in SPLITS:
        here = [photo for photo in found.split if photo.provenance["side"] == side and len(photo.boxes) == 1]
        kinds = {domain: len({photo.entity for photo in here if photo.domain == domain}) for domain in _domains(found)}
        if max(kinds.values()) < 2:
            yield (
                f"the {side} side has photos of {max(kinds.values())} kind, and an image shows two at least: give "
                "more kinds, more photos that do not look the same, or other shares"
            )


def _domains(found: Check) -> set[str]:
    return {photo.domain for photo in found.photos}


def told(found: Check) -> Iterator[str]:
    """Say in words what is there, what is alike, and who may be seen where."""
    kinds = Counter((photo.domain, photo.entity) for photo in found.photos)
    fewest, most = min(kinds.values()), max(kinds.values())
    each = f"{fewest} of each" if fewest == most else f"{fewest} to {most} of each"
    yield f"{len(found.photos)} photos of {len(kinds)} kinds, {each}"
    small = min(found.photos, key=lambda photo: min(photo.size.width, photo.size.height))
    yield f"smallest photo: {small.size.width:g} x {small.size.height:g} pixels, {small.id}"
    side, tiny = min((_shortest(box, photo.size), photo.id) for photo in found.photos for box in photo.boxes or [_ALL])
    yield f"smallest box: {side:.0f} pixels on its short side, {tiny}"
    if many := [photo.id for photo in found.photos if len(photo.boxes) > 1]:
        yield f"with several boxes, never asked for: {len(many)}, {_few(many)}"
    if few := [name for (_, name), count in sorted(kinds.items()) if count < len(SPLITS)]:
        yield f"fewer than {len(SPLITS)} photos, so not on every side: {_few(few)}"
    for ids in found.alike:
        yield f"look the same, kept on one side: {_few(ids)}"
    for use in ("validation", "test"):
        held = sorted({photo.entity for photo in found.split if photo.provenance["use"] == use})
        yield f"kinds held out for {use}: {_few(held, 12) or 'none'}"
    sides = Counter(photo.provenance["side"] for photo in found.split)
    yield "photos by side: " + ", ".join(f"{side} {sides[side]}" for side in SPLITS)


_ALL = Box(0, 0, 1, 1)


def label_faults(
    photo: Photo, cards: knowledge.Cards | None, spelled: dict[str, str], *, marks: bool = True
) -> Iterator[str]:
    """Say what is wrong with a photo's labels: its domain, its entity's spelling, what is known of it.

    Args:
        photo: from a source.
        cards: of every entity; None where there are none, and photos bring their own marks.
        spelled: how entities were spelled before; filled here. One of two spellings could be held out, the other not.
        marks: without cards, a photo without marks is wrong.
    """
    first = spelled.setdefault(knowledge.same_name(photo.entity), photo.entity)
    if first != photo.entity:
        yield f"photo {photo.id}: entity {photo.entity!r} was spelled {first!r} before; keep to one"
    try:
        domains.load(photo.domain)
        if cards is not None and not cards[photo.entity]:
            yield f"photo {photo.id}: the card of {photo.entity!r} has no mark that may be used"
    except FieldmarkError as error:
        yield f"photo {photo.id}: {error}"
    if marks and cards is None and not photo.marks:
        yield f"photo {photo.id}: no marks are known of {photo.entity!r}: give knowledge cards with --knowledge FILE"


def labelled(source: str, request: PhotoRequest, cards: knowledge.Cards | None) -> Iterator[Photo]:
    """Yield the photos of a source whose labels are sound; the first fault is an error."""
    spelled: dict[str, str] = {}
    for photo in sources.photos(source, request):
        for fault in label_faults(photo, cards, spelled):
            raise FieldmarkError(fault)
        yield photo


def _shortest(box: Box, size: Frame) -> float:
    """Return a box's shorter side in pixels."""
    x1, y1, x2, y2 = box.to_xyxy(size)
    return min(x2 - x1, y2 - y1)


def _few(names: Sequence[str], count: int = 4) -> str:
    """List the first names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
