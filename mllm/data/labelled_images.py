"""Labelled images as other tools export them: where the images lie, and how they become photos.

A source reads its files into `LabelledImage`s; `photos` alone decides which of them are photos and checks the boxes.
"""

import hashlib
import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import Field, FiniteFloat

from mllm.boxes import Box, Frame, Numbers
from mllm.data.source_files import (
    IMAGE_SUFFIXES,
    SourceError,
    check_count,
    check_inside,
    find_file,
    make_box,
    read_turned,
)  # fmt: skip
from mllm.data.sources import PhotoRequest, one_photo, things_of
from mllm.errors import ImageError
from mllm.io.files import is_file, write_bytes
from mllm.io.images import image_format
from mllm.records import Entity, Photo, Split

log = logging.getLogger(__name__)
T = TypeVar("T")
Point = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
"""x and y in a JSON file."""
SIDES: dict[str, Split] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""What other tools call a side -> ours."""
TAXA = {
    "aves": "bird", "birds": "bird", "mammalia": "mammal", "mammals": "mammal", "reptiles": "reptilia",
    "mollusks": "mollusca",
}  # fmt: skip
"""Names of groups of living things -> our domain; any other is a domain's name as it is."""
_HASH = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts in front of the name of an uploaded file."""


@dataclass(frozen=True, slots=True)
class Label:
    """One name on an image, with the numbers of its box, or none if it stands for the whole image.

    `where` (file, line, field) begins the errors; `order` is "xyxy" or "xywh"; `frame` is what the numbers are measured
    on, None: pixels of the image.
    """

    where: str
    name: str
    numbers: Sequence[float] = ()
    order: str = "xyxy"
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image with its labels; `image` is its path, or its bytes if it has no file.

    `path_field` is where the path was written, `size` the size in pixels that the export states.
    """

    where: str
    id: str
    image: Path | bytes
    labels: Sequence[Label]
    path_field: str = "image"
    size: Frame | None = None
    domain: str | None = None
    genus: str | None = None
    licence: str = ""
    split: Split | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


def photos(
    source: str, entries: Iterable[T], read: Callable[[T], LabelledImage | None], request: PhotoRequest
) -> Iterator[Photo]:
    """Yield the photos among the entries of an export; `read` makes a labelled image of one, None if it is not there.

    Images without a label are skipped, and a warning counts them. Where the export puts every kind on one side as a
    whole, that side is the `use` of its things; any other division is counted, and not used.
    """
    found = list(_usable(source, entries, read, request))
    sides: dict[Entity, set[Split]] = defaultdict(set)
    for photo in found:
        if photo.split is not None:
            for kind in photo.kinds:
                sides[kind].add(photo.split)
    names = set[Split]().union(*sides.values())
    by_kind = len(names) > 1 and "train" in names and all(len(group) == 1 for group in sides.values())
    if len(names) > 1 and not by_kind:
        counts = Counter(photo.split for photo in found if photo.split)
        log.warning(
            "%s: its division of the images (%s) is not used: photos are divided by kind and by image, with the seed",
            request.input,
            ", ".join(f"{name} {count}" for name, count in sorted(counts.items())),
        )
    for photo in found:
        things = tuple(replace(one, use=next(iter(sides[one.kind]), None) if by_kind else None) for one in photo.things)
        yield replace(photo, split=None, things=things)


def _usable(
    source: str, entries: Iterable[T], read: Callable[[T], LabelledImage | None], request: PhotoRequest
) -> Iterator[Photo]:
    skipped: Counter[str] = Counter()
    places: dict[str, str] = {}
    total = 0
    for entry in entries:
        total += 1
        with one_photo(request):
            if (image := read(entry)) is None:
                skipped["not among the files"] += 1
                continue
            if not image.labels:
                skipped["no label"] += 1
                continue
            photo = _photo(source, image, request)
            own_file = isinstance(image.image, Path)  # equal bytes share a file
            if own_file and (first := places.setdefault(photo.image, image.where)) != image.where:
                raise SourceError(
                    f"{image.where}: field {image.path_field}: {photo.image} is the image of {first} already"
                )
            yield photo
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
    if skipped.total() == total:
        raise SourceError(
            f"{request.input}: no image has a label ({reasons or 'it holds no image'}); nothing can be used"
        )
    if skipped:
        log.warning("%s: %d of %d images skipped (%s)", request.input, skipped.total(), total, reasons)


def _photo(source: str, image: LabelledImage, request: PhotoRequest) -> Photo:
    path = image.image if isinstance(image.image, Path) else _stored(image.image, image, request.out)
    size, orientation = read_turned(path, image.where, image.path_field, image.size)
    check_count(image.labels, image.where)
    drawn_on = size.oriented(orientation)
    domain, labels = request.domain or image.domain, []
    for label in image.labels:
        box = _box(label, drawn_on, request.clip_boxes).oriented(orientation) if label.numbers else None
        labels.append((label.name, domain, box))
    things = things_of(labels, image.where, request)
    own = isinstance(image.image, bytes)
    return Photo(
        id=image.id,
        image=path.relative_to(request.out).as_posix() if own else str(path.resolve()),
        size=size,
        things=tuple(replace(thing, genus=image.genus or None) for thing in things),
        licence=image.licence or request.licence,
        split=image.split,
        provenance={"source": source, **image.notes},
    )


def _box(label: Label, pixels: Frame, clip: bool) -> Box:
    """Make the box of a label. Shares that leave the image by less than half a pixel were rounded, and are clipped."""
    frame = label.frame or pixels
    if label.frame is not None and len(label.numbers) == 4:
        x1, y1, x2, y2 = label.numbers
        x2, y2 = (x1 + x2, y1 + y2) if label.order == "xywh" else (x2, y2)
        across, down = 0.5 * frame.width / pixels.width, 0.5 * frame.height / pixels.height
        clip |= min(x1 / across, y1 / down) > -1 and x2 < frame.width + across and y2 < frame.height + down
    return make_box(label.numbers, frame, label.where, order=label.order, clip=clip)


def _stored(data: bytes, image: LabelledImage, out: Path) -> Path:
    """Write an image that has no file below the output, once, under the hash of its bytes."""
    try:
        kind = image_format(data, image.id)
    except ImageError as error:
        raise SourceError(f"{image.where}: field {image.path_field}: {error}") from None
    name = f"{hashlib.sha256(data).hexdigest()[:32]}.{'jpg' if kind == 'JPEG' else kind.lower()}"
    path = out / "photos" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    return path


class Images:
    """The images of an export, which lie in its folder or in `images/` inside."""

    def __init__(self, root: Path, *folders: Path) -> None:
        """`folders` (by default those two) are searched in their order."""
        self.root = root
        self._folders = folders or (root, root / "images")
        self._others: dict[str, list[Path]] | None = None

    def find(self, name: str, key: str = "") -> Path:
        """Return where an image lies; a path that is not there if there is none, for `read_size` to refuse.

        Looked for: its path; the end of a path or address that leads out of the folder; its name with or without Label
        Studio's hash; `images/<key>.jpg` and the like. Raises SourceError: two files fit, or a link leads out.
        """
        for folder in self._folders:
            for end in path_ends(name):
                if is_file(found := find_file(folder, end)):
                    check_inside(self.root, found)
                    return found
        if self._others is None:
            self._others = defaultdict(list)
            for folder in self._folders:
                for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                    if path.suffix.lower() in IMAGE_SUFFIXES:
                        self._others[_HASH.sub("", path.name)].append(path)
                        self._others[f"{folder.name}/{path.stem}"].append(path)
        last = path_ends(name)[-1]
        fitting = self._others.get(_HASH.sub("", last)) or (key and self._others.get(f"images/{key}")) or []
        if len(fitting) > 1:
            raise SourceError(f"{self.root}: {last!r:.200} could be {fitting[0].name} or {fitting[1].name}; keep one")
        for found in fitting:
            check_inside(self.root, found)
        return fitting[0] if fitting else self.root / last


def path_ends(name: str) -> list[str]:
    """Return under which paths inside a folder a file may lie, the longest first.

    A relative path has one. An address, an absolute path or one that leads upwards was true elsewhere: any end of it.
    """
    path = name
    if "://" in name or name.startswith("/data/"):  # Label Studio's own addresses begin with /data/
        parts = urlsplit(name)
        path = "/" + (parse_qs(parts.query).get("d") or [unquote(parts.path)])[0]
    path = path.replace("\\", "/")
    elsewhere = path.startswith("/") or re.match(r"[A-Za-z]:/", path) or ".." in path.split("/")
    steps = [step for step in path.rpartition("../")[2].split("/") if step not in ("", ".", "..")] or ["?"]
    return ["/".join(steps[start:]) for start in range(len(steps))] if elsewhere else ["/".join(steps)]


def domain_of(taxon: str) -> str:
    """Return the domain of a group of living things, as it is called in Latin or English."""
    return TAXA.get(taxon.lower(), taxon.lower())


def stated_size(width: float | None, height: float | None) -> Frame | None:
    """Return the size of an image that an export states; None if it states none (some tools write 0 x 0)."""
    sides = [side for side in (width, height) if side is not None and 0 < side < math.inf]
    return Frame(*sides) if len(sides) == 2 else None


def around(points: Iterable[Sequence[float]]) -> Numbers:
    """Return x1, y1, x2, y2 of the smallest box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def turned(corners: Numbers, degrees: float, about: tuple[float, float]) -> Numbers:
    """Return the box around a rectangle that is turned clockwise about a point."""
    if not degrees:
        return corners
    x1, y1, x2, y2 = corners
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    sides = [(x - about[0], y - about[1]) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
    return around((about[0] + x * cos - y * sin, about[1] + x * sin + y * cos) for x, y in sides)
