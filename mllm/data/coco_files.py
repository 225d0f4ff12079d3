"""Files in COCO's format: images, categories and annotations, read strictly and indexed by id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, Field, FiniteFloat

from mllm.boxes import Box, Frame
from mllm.data.source_files import SourceError, check_count, make_box, read_size
from mllm.io.images import exif_orientation, image_size


def _id(value: Any) -> int | str:
    if type(value) not in (int, str):
        raise ValueError("a number or a text is needed")
    return value


Id = Annotated[Any, AfterValidator(_id)]
Side = Annotated[FiniteFloat, Field(gt=0, lt=1e9)]


class CocoImage(BaseModel):
    """An entry of `images`; width and height are those of the annotation, in pixels."""

    id: Id
    file_name: str
    width: Side | None = None
    height: Side | None = None
    license: Id | None = None


class CocoCategory(BaseModel):
    """An entry of `categories`."""

    id: Id
    name: str
    supercategory: str | None = None


class CocoInstance(BaseModel):
    """An annotation with a box `[left, top, width, height]` in pixels."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]
    iscrowd: bool | int = 0


class Entry(Protocol):
    """An entry of any of the lists."""

    id: Any


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Placed(Generic[E]):
    """An entry and its place: file, list and index."""

    where: str
    row: E


def by_id(file: Path, name: str, rows: Iterable[E]) -> dict[Any, Placed[E]]:
    """Index a list called `name` by id, in its order; a repeated id is an error."""
    found: dict[Any, Placed[E]] = {}
    for index, row in enumerate(rows):
        where = f"{file}: {name}[{index}]"
        if row.id in found:
            raise SourceError(f"{where}: field id: {row.id!r} was used before, at {found[row.id].where}")
        found[row.id] = Placed(where, row)
    return found


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image on disk: path, size after EXIF rotation, and the rotation that its boxes still need (1: none)."""

    where: str
    path: Path
    size: Frame
    orientation: int

    def boxes(self, instances: Sequence[Placed[Any]], *, clip: bool) -> tuple[Box, ...]:
        """Return the boxes of annotations with a `bbox`, rotated like the image."""
        check_count(instances, self.where)
        frame = self.size if self.orientation == 1 else _stored_size(self.path)
        return tuple(
            make_box(one.row.bbox, frame, f"{one.where}: field bbox", order="xywh", clip=clip).oriented(
                self.orientation
            )
            for one in instances
        )


def find_image(file: Path, image: Placed[CocoImage]) -> ImageFile:
    """Find an image beside the json or in `images/`; its own width and height tell whether boxes need rotation."""
    row, path = image.row, file.parent / image.row.file_name
    if not path.is_file():
        path = file.parent / "images" / row.file_name
    size, orientation = read_size(path, f"{image.where}: field file_name"), 1
    if row.width is not None and row.height is not None and (annotated := Frame(row.width, row.height)) != size:
        if annotated != _stored_size(path):
            raise SourceError(
                f"{image.where}: fields width, height: {row.width:g} x {row.height:g}, but {path} is {size.width:g} x"
                f" {size.height:g}; the boxes would not fit (was the image resized?)"
            )
        orientation = exif_orientation(path)
    return ImageFile(image.where, path, size, orientation)


def _stored_size(path: Path) -> Frame:
    """Return the size as stored, before EXIF rotation."""
    size, orientation = image_size(path), exif_orientation(path)
    return Frame(size.height, size.width) if orientation >= 5 else size
