"""Sources of labelled photos: one input format per file, named after the file.

A source defines `photos(request: PhotoRequest) -> Iterator[Photo]`, which yields photos in a fixed order or raises
`SourceError`. It reads image headers only. A user's images are not copied: `Photo.image` is an absolute path. A source
whose columns can be called otherwise (`--column`) lists our names of them as `COLUMNS`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module

from mllm.boxes import Box
from mllm.data.source_files import SourceError, SourceRequest, distinct, need_domain
from mllm.io import words
from mllm.records import Photo, PhotoThing
from mllm.registry import Registry

Label = tuple[str, str | None, Box | None]
"""A name, its domain if the input names one, and a box if there is one."""


@dataclass(frozen=True, slots=True)
class PhotoRequest(SourceRequest):
    """What a source of photos is asked for."""

    photos_per_entity: int = 24
    """Number of photos that a source that draws makes of each entity of the training set."""
    whole_image_boxes: bool = False
    """Use the whole photo as the box of a photo without one, instead of refusing it."""
    boxes_later: bool = False
    """Yield a photo without a box unchanged: boxes will be added later (`mllm.synthesis.photo_stages`)."""
    clip_boxes: bool = False
    """Clip boxes to the image, instead of refusing those that leave it."""
    on_error: Callable[[SourceError], None] | None = None
    """Called for each photo that cannot be used, which is then skipped; None: the first error is raised."""


_FILES = Registry(__name__, "source", "photos")
names, load = _FILES.names, _FILES.load


def photos(name: str, request: PhotoRequest) -> Iterator[Photo]:
    """Yield a source's photos. Raises UnknownNameError, or SourceError: the input cannot be read, an id is repeated."""
    read = load(name)
    known = getattr(import_module(f"{__name__}.{name}"), "COLUMNS", ()) if request.columns else ()
    for column, theirs in request.columns.items():
        if column not in known:
            names = ", ".join(known) or "it has no columns"
            raise SourceError(f"--column {column}={theirs}: source {name} has no such column to be found; {names}")
    return distinct(_named(read(request), request), request.input or name, "photos")


def _named(found: Iterator[Photo], request: PhotoRequest) -> Iterator[Photo]:
    """Write the names of all sources in one way; `provenance.written` keeps one that was written otherwise."""
    for photo in found:
        with one_photo(request):
            written: dict[str, str] = {}
            for thing in (*photo.things, *photo.crowds):
                words.check(thing.entity, f"photo {photo.id}: field entity", SourceError)
                if not (entity := words.name(thing.entity)):
                    raise SourceError(f"photo {photo.id}: field entity: a name is needed, got {thing.entity!r}")
                if entity != thing.entity:
                    written[entity] = thing.entity
            things, crowds = (
                tuple(replace(thing, entity=words.name(thing.entity)) for thing in part)
                for part in (photo.things, photo.crowds)
            )
            notes = {**photo.provenance, **({"written": written} if written else {})}
            yield replace(photo, things=things, crowds=crowds, provenance=notes)


@contextmanager
def one_photo(request: PhotoRequest) -> Iterator[None]:
    """Let an error of one photo end the listing, or, with `on_error`, skip only this photo."""
    try:
        yield
    except SourceError as error:
        if request.on_error is None:
            raise
        request.on_error(error)


def things_of(labels: Sequence[Label], where: str, request: PhotoRequest) -> tuple[PhotoThing, ...]:
    """Return the things of one photo from its labels; `where` (file and line) begins the error message.

    A label that is there twice counts once. A kind without a box is an error, unless the request allows to use the
    whole photo, where it shows one kind, or to add the box later.
    """
    boxed: dict[str, list[Box]] = {}
    domains: dict[str, str] = {}
    for name, domain, box in labels:
        domain = need_domain(domain or request.domain, where)
        if domains.setdefault(name, domain) != domain:
            raise SourceError(f"{where}: {name!r} is of domain {domains[name]!r} and of {domain!r}; keep one")
        boxes = boxed.setdefault(name, [])
        if box is not None and box not in boxes:
            boxes.append(box)
    found: list[PhotoThing] = []
    for name, boxes in boxed.items():
        alone = [Box(0, 0, 1, 1)] if request.whole_image_boxes and len(boxed) == 1 else []
        if not boxes and not alone and not request.boxes_later:
            of = "" if len(boxed) == 1 else f" of {name!r}, and it shows other kinds, too"
            raise SourceError(
                f"{where}: the photo has no box{of}. Grounding needs one: add boxes, use each whole photo as the box "
                "of its one thing with --whole-image-boxes, or let a teacher point (data_synth/grounding.py "
                "--boxes-from NAME; fieldmark photos passes over missing boxes with --boxes-later)"
            )
        found += [PhotoThing(name, domains[name], box) for box in boxes or alone or [None]]
    return tuple(found)
