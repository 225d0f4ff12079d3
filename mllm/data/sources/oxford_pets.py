"""Cats and dogs of the Oxford-IIIT Pet Dataset: a folder with `images/` and an `annotations.json`, a list of `PetRow`s.

The box is the body's; where less than 0.8 of the head lies inside the body, the published outline is one piece of a
broken mask, and the head's box is used instead (`provenance.box` says which).
"""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field, FiniteFloat

from mllm.boxes import Frame
from mllm.data.source_files import SourceError, make_box, need_input, read_size
from mllm.data.sources import PhotoRequest, one_photo
from mllm.io import strict_json
from mllm.records import Photo, PhotoThing

log = logging.getLogger(__name__)
LICENCE = "CC BY-SA 4.0 (The Oxford-IIIT Pet Dataset, Parkhi et al. 2012)"
BROKEN_MASK = 0.8


class PetRow(BaseModel):
    """One photo in the json; boxes in pixels, x1, y1, x2, y2."""

    image: str
    breed: str = Field(min_length=1)
    species: str = Field(min_length=1)
    width: FiniteFloat
    height: FiniteFloat
    head_xyxy: list[FiniteFloat]
    body_outer_xyxy: list[FiniteFloat]
    head_share_inside_body: FiniteFloat


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield cats and dogs in the order of the file; only one species if the request names its domain."""
    root = need_input(request, "folder")
    file = root / "annotations.json"
    if not file.is_file():
        raise SourceError(f"{file}: no such file; the folder needs annotations.json and images/")
    rows = strict_json.read(file, list, kind=SourceError)
    if not rows:
        raise SourceError(f"{file}: the file holds no photo")
    kinds: Counter[str] = Counter()
    for index, content in enumerate(rows):
        where = f"{file}: [{index}]: "
        with one_photo(request):
            row = strict_json.parsed(content, PetRow, where, kind=SourceError)
            if request.domain in (None, row.species):
                photo = _photo(row, where, root / row.image)
                kinds[photo.provenance["box"]] += 1
                yield photo
    if not kinds:
        raise SourceError(f"{file}: no photo of domain {request.domain!r}; it holds cat and dog")
    log.info("%s: %d body boxes, %d head boxes (broken outlines)", file, kinds["body"], kinds["head"])


def _photo(row: PetRow, where: str, path: Path) -> Photo:
    frame = read_size(path, f"{where}field image")
    if frame != Frame(row.width, row.height):
        raise SourceError(f"{where}fields width, height differ from those of {path}; was the image resized?")
    broken = row.head_share_inside_body < BROKEN_MASK
    kind, field = ("head", "head_xyxy") if broken else ("body", "body_outer_xyxy")
    box = make_box(getattr(row, field), frame, f"{where}field {field}", order="xyxy", clip=True)
    return Photo(
        id=path.stem,
        image=str(path.resolve()),
        size=frame,
        things=(PhotoThing(row.breed, row.species, box),),
        licence=LICENCE,
        provenance={"source": "oxford_pets", "box": kind},
    )
