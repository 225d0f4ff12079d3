"""Files in COCO's format: images, categories, instances and captions, read strictly and indexed by id."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, FiniteFloat

from mllm.boxes import Box, Frame
from mllm.data.source_files import SourceError, check_count, find_file, make_box, read_turned
from mllm.io import strict_json

log = logging.getLogger(__name__)


def _id(value: Any) -> int | str:
    """Return an id; one number has one form, whether it is written 3, 3.0 or "3"."""
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a whole number or a text is needed")
    is_number = isinstance(value, str) and len(value) < 20 and value.isdecimal() and str(int(value)) == value
    return int(value) if is_number else value


Id = Annotated[Any, AfterValidator(_id)]
Side = Annotated[FiniteFloat, Field(gt=0, lt=1e9)]
Numbers4 = Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]


class CocoEntry(BaseModel):
    """An entry of any of the lists."""

    id: Id


class CocoImage(CocoEntry):
    """An entry of `images`; width and height are those of the annotation, in pixels."""

    file_name: str
    width: Side | None = None
    height: Side | None = None
    license: Id | None = None


class CocoCategory(CocoEntry):
    """An entry of `categories`."""

    name: str
    supercategory: str | None = None


class CocoLicence(CocoEntry):
    """An entry of `licenses`."""

    name: str
    url: str = ""


class CocoAnnotation(BaseModel):
    """A caption, or an instance with a box `[left, top, width, height]` in pixels. Its own id is not needed here."""

    image_id: Id
    caption: str | None = None
    category_id: Id | None = None
    bbox: Numbers4 | None = None
    iscrowd: bool | int = 0


class _CocoFile(BaseModel):
    images: Annotated[list[CocoImage], Field(min_length=1)]
    annotations: Annotated[list[CocoAnnotation], Field(min_length=1)]
    categories: list[CocoCategory] = []
    licenses: list[CocoLicence] = []


E = TypeVar("E", bound=CocoEntry)
R = TypeVar("R", bound=BaseModel)
Placed = tuple[str, R]
"""An entry after its place: file, list and index."""


@dataclass(frozen=True, slots=True)
class Coco:
    """The entries of a file by id, in its order; captions and instances by the id of their image."""

    images: dict[Any, Placed[CocoImage]]
    categories: dict[Any, Placed[CocoCategory]]
    licences: dict[Any, Placed[CocoLicence]]
    captions: dict[Any, list[Placed[CocoAnnotation]]] = field(default_factory=dict)
    instances: dict[Any, list[Placed[CocoAnnotation]]] = field(default_factory=dict)


def read_coco(file: Path) -> Coco:
    """Read a file. Raises SourceError naming file, entry and field: broken JSON, another shape, bad ids."""
    content = strict_json.read(file, _CocoFile, kind=SourceError)
    images, categories = by_id(file, "images", content.images), by_id(file, "categories", content.categories)
    coco = Coco(images, categories, by_id(file, "licenses", content.licenses))
    empty: list[str] = []
    for index, row in enumerate(content.annotations):
        where = f"{file}: annotations[{index}]"
        if row.image_id not in images:
            raise SourceError(f"{where}: field image_id: {row.image_id!r} is in no entry of the images list")
        if row.caption is None and (row.bbox is None or row.category_id not in categories):
            raise SourceError(f"{where}: neither a caption nor an instance (bbox, and a category_id of the categories)")
        if row.caption is not None and not row.caption.strip():
            raise SourceError(f"{where}: field caption: a text is needed, got {row.caption!r:.60}")
        if row.caption is None and row.bbox is not None and 0 in row.bbox[2:]:
            empty.append(where)  # COCO's own files hold such boxes
            continue
        group = coco.instances if row.caption is None else coco.captions
        group.setdefault(row.image_id, []).append((where, row))
    if empty:
        log.warning("%d boxes of width or height 0 passed over, the first: %s", len(empty), empty[0])
    return coco


def by_id(file: Path, name: str, rows: Iterable[E]) -> dict[Any, Placed[E]]:
    """Index a list called `name` by id, in its order; a repeated id is an error."""
    found: dict[Any, Placed[E]] = {}
    for index, row in enumerate(rows):
        where = f"{file}: {name}[{index}]"
        if row.id in found:
            raise SourceError(
                f"{where}: field id: {row.id!r} was used before, at {found[row.id][0]}; in a file merged from several, "
                "give the ids of each its own numbers"
            )
        found[row.id] = (where, row)
    return found


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image on disk: path, size after EXIF rotation, and the rotation that its boxes still need (1: none)."""

    where: str
    path: Path
    size: Frame
    orientation: int

    def boxes(self, instances: Sequence[Placed[CocoAnnotation]], *, clip: bool) -> tuple[Box, ...]:
        """Return the boxes of instances, rotated like the image."""
        check_count(instances, self.where)
        frame = self.size.oriented(self.orientation)
        places = [(row.bbox or (), frame, f"{where}: field bbox") for where, row in instances]
        return tuple(make_box(*place, order="xywh", clip=clip).oriented(self.orientation) for place in places)


def find_image(file: Path, image: Placed[CocoImage]) -> ImageFile:
    """Find an image beside the json or in `images/`; its own width and height decide whether boxes need rotation."""
    where, row = image
    path = find_file(file.parent, row.file_name)
    if not path.is_file():
        path = find_file(file.parent / "images", row.file_name)
    annotated = None if row.width is None or row.height is None else Frame(row.width, row.height)
    return ImageFile(where, path, *read_turned(path, where, "file_name", annotated))
