"""Checks labelled photos before data is made of them: reports all faults at once, and how photos will be split.

`data_synth/grounding.py` stops at the first fault; here they are collected, so that all can be fixed at once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mllm.boxes import Box, Frame
from mllm.data import sources, splits
from mllm.data.sources import PhotoRequest, SourceError
from mllm.data.splits import Shares
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.knowledge import domains
from mllm.knowledge.cards import Cards, normalize_name
from mllm.records import SPLITS, Photo

MAX_ASPECT = 200
"""Of the longer side to the shorter: the image processors of the Qwen-VL models refuse more."""


@dataclass(slots=True)
class LabelReport:
    """The usable photos, and a line for each fault."""

    photos: list[Photo] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    """Ids of near-duplicate photos, group by group."""
    lacking: list[tuple[str, str]] = field(default_factory=list)
    """Domain and name of each kind of which neither a card nor the photos say any mark, sorted."""
    split: list[Photo] = field(default_factory=list)
    """The photos with their sides, as a synthesis with the same seed and shares would split them."""


def check(source: str, request: PhotoRequest, cards: Cards | None, shares: Shares, seed: int) -> LabelReport:
    """Decode every photo, look up its card and its near-duplicates, and split the good photos.

    Raises `FieldmarkError`: the input as a whole cannot be read, e.g. no such folder or a table without needed columns,
    or holds no photo.
    """
    found = LabelReport()
    prints: list[list[str]] = []
    spelled: dict[str, str] = {}
    lacking: Counter[tuple[str, str]] = Counter()
    collecting = replace(request, on_error=lambda error: found.faults.append(str(error)))
    for photo in sources.photos(source, collecting):
        try:
            known = photo.entity in cards if cards is not None else bool(photo.marks)
            lacking[photo.domain, photo.entity] += not known
            if fault := "; ".join(label_faults(photo, cards if known else None, spelled, marks=False)):
                raise FieldmarkError(fault)
            image = open_image(request.out / photo.image)
            if known or cards is None:
                prints.append(splits.fingerprint(image, () if photo.drawn else photo.boxes))
                found.photos.append(photo)
        except FieldmarkError as error:
            found.faults.append(str(error))
    if not found.photos and not found.faults:
        raise SourceError(f"{request.input or source}: no photo found")
    found.faults += two_labels(found.photos, prints)
    found.lacking = sorted(+lacking)
    if cards is not None and found.lacking:
        named = ", ".join(f"{name!r} ({lacking[domain, name]})" for domain, name in found.lacking)
        found.faults.append(f"{cards.origin}: no card for {len(found.lacking)} kinds (photos of each): {named}")
    groups: dict[int, list[str]] = {}
    for photo, group in zip(found.photos, splits.near_duplicates(prints), strict=True):
        groups.setdefault(group, []).append(photo.id)
    found.duplicates = [ids for ids in groups.values() if len(ids) > 1]
    if found.photos:
        found.split = splits.split(found.photos, prints, shares, seed).photos
    return found


def sides_without_images(found: LabelReport) -> Iterator[str]:
    """Yield a line for each side with too few kinds: an image needs at least two, each with one box."""
    if not found.photos:
        return
    domains_found = {photo.domain for photo in found.photos}
    for side in SPLITS:
        here = [photo for photo in found.split if photo.split == side and len(photo.boxes) == 1]
        kinds = {domain: len({photo.entity for photo in here if photo.domain == domain}) for domain in domains_found}
        if max(kinds.values()) < 2:
            yield (
                f"the {side} side has photos of {max(kinds.values())} kind, but an image needs at least two: add "
                "kinds or photos that are not near-duplicates, or change the shares"
            )


def summary(found: LabelReport) -> Iterator[str]:
    """Yield lines on the photos, near-duplicates and the split."""
    if not found.photos:
        yield "no photo can be used"
        return
    kinds = Counter((photo.domain, photo.entity) for photo in found.photos)
    fewest, most = min(kinds.values()), max(kinds.values())
    each = f"{fewest} of each" if fewest == most else f"{fewest} to {most} of each"
    yield f"{len(found.photos)} photos of {len(kinds)} kinds, {each}"
    small = min(found.photos, key=lambda photo: min(photo.size.width, photo.size.height))
    yield f"smallest photo: {small.size.width:g} x {small.size.height:g} pixels, {small.id}"
    boxes = [(box, photo) for photo in found.photos for box in photo.boxes or [Box(0, 0, 1, 1)]]
    side, tiny = min((_shortest(box, photo.size), photo.id) for box, photo in boxes)
    yield f"smallest box: {side:.0f} pixels on its short side, {tiny}"
    if many := [photo.id for photo in found.photos if len(photo.boxes) > 1]:
        yield f"with several boxes, never a target: {len(many)}, {_few(many)}"
    if few := [name for (_, name), count in sorted(kinds.items()) if count < len(SPLITS)]:
        yield f"fewer than {len(SPLITS)} photos, so not on every side: {_few(few)}"
    renamed = sorted(
        {(str(photo.provenance["written"]), photo.entity) for photo in found.photos if "written" in photo.provenance}
    )
    if renamed:
        yield f"names read otherwise than they are written: {_few([f'{old!r} as {new!r}' for old, new in renamed])}"
    for ids in found.duplicates:
        yield f"near-duplicates, kept on one side: {_few(ids)}"
    for use in ("validation", "test"):
        held = sorted({photo.entity for photo in found.split if photo.use == use})
        yield f"kinds held out for {use}: {_few(held, 12) or 'none'}"
    sides = Counter(photo.split for photo in found.split)
    yield "photos by side: " + ", ".join(f"{side} {sides[side]}" for side in SPLITS)


def label_faults(photo: Photo, cards: Cards | None, spelled: dict[str, str], *, marks: bool = True) -> Iterator[str]:
    """Yield the faults of a photo's labels: its domain, its entity's spelling, missing knowledge.

    `cards` is None if photos have their own marks; `marks` says whether one without any is a fault then. `spelled`
    holds the spellings so far and is updated: of two spellings one could be held out and the other not.
    """
    short, long = sorted((photo.size.width, photo.size.height))
    if short < 2 or long > MAX_ASPECT * short:
        yield (
            f"photo {photo.id}: {photo.size.width:g} x {photo.size.height:g} pixels, which no model takes (at least 2 "
            f"pixels, and no side over {MAX_ASPECT} times the other); crop it or leave it out"
        )
    try:
        same = normalize_name(photo.entity) if cards is None else cards.same(photo.entity)
        first = spelled.setdefault(same, photo.entity)
        if first != photo.entity:
            yield f"photo {photo.id}: entity {photo.entity!r} was spelled {first!r} before; use one spelling"
        domains.load(photo.domain)
        if cards is not None and not cards[photo.entity]:
            yield f"photo {photo.id}: the card of {photo.entity!r} has no usable mark"
    except FieldmarkError as error:
        yield f"photo {photo.id}: {error}"
    if marks and cards is None and not photo.marks:
        yield f"photo {photo.id}: no marks are known for {photo.entity!r}: give knowledge cards with --knowledge FILE"


def two_labels(photos: Sequence[Photo], fingerprints: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each picture that is there under two labels: a line-up could show it as both."""
    first: dict[str, Photo] = {}
    for photo, prints in zip(photos, fingerprints, strict=True):
        if prints and not photo.drawn:  # drawings of two species may be that similar
            other = first.setdefault(prints[0], photo)
            if (other.domain, other.entity) != (photo.domain, photo.entity):
                yield (
                    f"photo {photo.id}: {photo.image} is labelled {photo.entity!r}, and the same picture {other.image} "
                    f"{other.entity!r}; keep the right one"
                )


def labelled(source: str, request: PhotoRequest, cards: Cards | None) -> Iterator[Photo]:
    """Yield the photos of a source; the first fault in their labels is an error."""
    spelled: dict[str, str] = {}
    for photo in sources.photos(source, request):
        for fault in label_faults(photo, cards, spelled):
            raise FieldmarkError(fault)
        yield photo


def _shortest(box: Box, size: Frame) -> float:
    x1, y1, x2, y2 = box.to_xyxy(size)
    return min(x2 - x1, y2 - y1)


def _few(names: Sequence[str], count: int = 4) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
