"""Sources: where labelled photos come from. One input format a file; the file name is the registry.

A source file defines `photos(request: Request) -> Iterator[Photo]`, which yields every labelled photo of the user's
input in a fixed order, or raises `SourceError`: file, line, field and the way out. It opens image headers, never
whole images. Images of a user are left where they lie (`Photo.image` is then an absolute path).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mllm.boxes import Box, Frame
from mllm.errors import BoxError, FieldmarkError
from mllm.io.images import image_size
from mllm.records import Photo
from mllm.registry import Registry

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


MOST_BOXES = 2_000
"""Boxes that one image may have. No labelled photo has so many, and each is compared with the others."""


class SourceError(FieldmarkError):
    """An input that cannot be read as labelled photos: says which file, line and field, and what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a source is asked for. A source uses what applies to it."""

    input: Path | None = None
    """The user's folder or file; None for a source that draws its own photos."""
    domain: str | None = None
    """Domain of every photo, where the input does not say it photo by photo."""
    out: Path = Path()
    """Folder of the photos file; a source that draws puts its images under `out/photos`."""
    seed: int = 0
    photos_per_entity: int = 24
    """How many photos a source that draws makes of each entity of the training set."""
    whole_image_boxes: bool = False
    """Take a photo without a box as filled by its thing, instead of refusing it."""
    boxes_later: bool = False
    """Yield a photo without a box as it is: somebody will point (`mllm.synthesis.pseudo_boxes`)."""
    clip_boxes: bool = False
    """Cut boxes at the image's edge, instead of refusing those that leave it."""
    licence: str = ""
    """Terms of the photos, where the input does not say them."""
    wrong: Callable[[SourceError], None] | None = None
    """Told of each photo that cannot be used, which is then passed over; None: the first one is raised."""


Source = Callable[[Request], Iterator[Photo]]


_FILES = Registry(__name__, "source", "photos")
names = _FILES.names


def load(name: str) -> Source:
    """Return the source called `name`; an unknown name is an error that lists the known ones."""
    return _FILES.load(name)


def photos(name: str, request: Request) -> Iterator[Photo]:
    """Yield the photos of the source called `name`; the same id twice is an error."""
    found: set[str] = set()
    for photo in load(name)(request):
        if photo.id in found:
            raise SourceError(f"{request.input or name}: two photos have the id {photo.id!r}; ids must differ")
        found.add(photo.id)
        yield photo


@contextmanager
def one_photo(request: Request) -> Iterator[None]:
    """What is wrong with one photo ends the listing, or, where somebody asked to be told, this photo alone."""
    try:
        yield
    except SourceError as error:
        if request.wrong is None:
            raise
        request.wrong(error)


class Asked(Protocol):
    """A request of any kind that may name an input."""

    @property
    def input(self) -> Path | None:
        """The user's folder or file."""
        ...


def need_input(request: Asked, kind: str) -> Path:
    """Return the user's input, or raise when none was given or it is not there. `kind` is "folder" or "file"."""
    path = request.input
    if path is None:
        raise SourceError(f"this source needs an input {kind}: give it with --input")
    if not (path.is_dir() if kind == "folder" else path.is_file()):
        raise SourceError(f"{path}: no such {kind}")
    return path


def read_text(file: Path) -> str:
    """Return a text file's content; another coding than UTF-8 is an error."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None


def need_domain(domain: str | None, where: str) -> str:
    """Return the domain, or raise when neither the input nor the request names one."""
    if not domain:
        raise SourceError(f"{where}: no domain is given; name one with --domain (e.g. bird)")
    return domain


def stay_inside(root: Path, path: Path) -> None:
    """Refuse a link that leads out of a folder whose images are taken as they come."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise SourceError(
            f"{path}: a link that leads out of {root}, to {path.resolve()}: whoever made the folder could put any "
            "image of yours into the data. Copy the image in, or name it in a table (--source csv)"
        )


def source_image_size(path: Path, where: str) -> Frame:
    """Return the size in pixels as people see the image. `where` (file and line) begins the error message."""
    try:
        if not path.is_file():
            raise SourceError(f"{where}: no such image {path}")
    except OSError as error:  # a name that is too long for any file
        raise SourceError(f"{where}: no such image ({error.strerror})") from None
    try:
        return image_size(path)
    except FieldmarkError as error:
        raise SourceError(f"{where}: {error}") from error


def make_box(numbers: Sequence[float], frame: Frame, where: str, *, order: str, clip: bool) -> Box:
    """Read one box in pixels; `order` is "xyxy" or "xywh". `where` (file, line, field) begins the error message."""
    read = Box.from_xywh if order == "xywh" else Box.from_xyxy
    try:
        return read(numbers, frame, clip=clip)
    except BoxError as error:
        hint = "; is the order x1,y1,x2,y2, in pixels of this image?" if order == "xyxy" else ""
        if "leaves" in str(error):
            hint = "; correct it, or cut boxes at the image's edge with --clip-boxes"
        raise SourceError(f"{where}: {error}{hint}") from None


def boxes_or_whole(boxes: Sequence[Box], where: str, request: Request) -> tuple[Box, ...]:
    """Return the boxes; without any, the whole image where the request allows it, else an error."""
    if boxes:
        return tuple(boxes)
    if request.whole_image_boxes:
        return (Box(0, 0, 1, 1),)
    if request.boxes_later:
        return ()
    raise SourceError(
        f"{where}: the photo has no box. Grounding needs one: add boxes, have a teacher point with --boxes-from,"
        " or take each whole photo as the box of its thing with --whole-image-boxes"
    )
