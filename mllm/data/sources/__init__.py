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
from mllm.data.source_files import SourceError, SourceRequest, distinct
from mllm.io import words
from mllm.records import Photo
from mllm.registry import Registry


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
            words.check(photo.entity, f"photo {photo.id}: field entity", SourceError)
            entity = words.name(photo.entity)
            if not entity:
                raise SourceError(f"photo {photo.id}: field entity: a name is needed, got {photo.entity!r}")
            written = {} if entity == photo.entity else {"written": photo.entity}
            yield replace(photo, entity=entity, provenance={**photo.provenance, **written})


@contextmanager
def one_photo(request: PhotoRequest) -> Iterator[None]:
    """Let an error of one photo end the listing, or, with `on_error`, skip only this photo."""
    try:
        yield
    except SourceError as error:
        if request.on_error is None:
            raise
        request.on_error(error)


def boxes_or_whole(boxes: Sequence[Box], where: str, request: PhotoRequest) -> tuple[Box, ...]:
    """Return the boxes; if there are none, the whole image where the request allows it, otherwise raise."""
    if boxes:
        return tuple(boxes)
    if request.whole_image_boxes:
        return (Box(0, 0, 1, 1),)
    if request.boxes_later:
        return ()
    raise SourceError(
        f"{where}: the photo has no box. Grounding needs one: add boxes, use each whole photo as the box of its thing "
        "with --whole-image-boxes, or let a teacher point (data_synth/grounding.py --boxes-from NAME; fieldmark photos "
        "passes over missing boxes with --boxes-later)"
    )
