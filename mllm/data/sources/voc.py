"""Pascal VOC: an XML file for each image, in `Annotations/` beside `JPEGImages/`, or beside the images themselves.

Pixels are counted from 1, as VOC does; a corner at 0 shows that a tool counted from 0. What is marked difficult or
truncated is kept, and noted. `ImageSets/Main` says which images are on which side.
"""

from collections.abc import Iterator
from pathlib import Path

from mllm.data.labelled_images import SIDES, Images, Label, LabelledImage, stated_size
from mllm.data.labelled_images import photos as made_photos
from mllm.data.source_files import SourceError, need_input, read_text
from mllm.data.sources import PhotoRequest
from mllm.io import strict_xml
from mllm.io.csv_tables import numbers_of
from mllm.io.strict_xml import Element
from mllm.records import Photo, Split

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = ("difficult", "truncated")


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images of all XML files below the folder, in the order of their paths."""
    root = need_input(request, "folder")
    files = sorted(root.rglob("*.xml"))
    if not files:
        raise SourceError(f"{root}: no XML file; VOC has one for each image, in Annotations/ or beside it")
    return made_photos("voc", files, _Reader(root).read, request)


def _sides(root: Path) -> dict[str, Split]:
    """Return the side of each image by its name without ending, from the lists that stand for one side each."""
    sides: dict[str, Split] = {}
    for file in sorted(root.rglob("ImageSets/Main/*.txt")):
        if side := SIDES.get(file.stem):
            sides.update((line.split()[0], side) for line in read_text(file).splitlines() if line.strip())
    return sides


class _Reader:
    """Reads the XML files of a folder, and finds their images."""

    def __init__(self, root: Path) -> None:
        self.root, self.sides = root, _sides(root)
        self._images: dict[Path, Images] = {}

    def read(self, file: Path) -> LabelledImage:
        top = strict_xml.read(file, SourceError)
        if top.tag != "annotation":
            raise SourceError(f"{top.where}: element {top.tag}: VOC's files begin with <annotation>")
        objects = top.all("object")
        size = {side: top.text_of("size", side) for side in ("width", "height")}
        flags = {flag: sum(one.text_of(flag) == "1" for one in objects) for flag in FLAGS}
        return LabelledImage(
            top.where,
            file.relative_to(self.root).with_suffix("").as_posix(),
            self._find(file, top.text_of("filename") or top.text_of("path") or f"{file.stem}.jpg"),
            [_label(one) for one in objects],
            path_field="filename",
            size=stated_size(*(numbers_of(size, tuple(size), top.where) or (None, None))),
            split=self.sides.get(file.stem),
            notes={flag: count for flag, count in flags.items() if count},
        )

    def _find(self, file: Path, name: str) -> Path:
        """Find an image in the folders beside its XML file, by its own name or by that of a file that was renamed."""
        if file.parent not in self._images:
            above = file.parent.parent
            beside = (above / "JPEGImages", file.parent, above, above / "images", self.root, self.root / "images")
            inside = (folder for folder in beside if folder.is_relative_to(self.root))
            self._images[file.parent] = Images(self.root, *dict.fromkeys(inside))
        images = self._images[file.parent]
        path = images.find(name)
        return path if path.is_file() else images.find(file.stem + Path(name).suffix)


def _label(one: Element) -> Label:
    name = one.text_of("name")
    if not name:
        raise SourceError(f"{one.where}: field name: the object has no name")
    found = numbers_of({corner: one.text_of("bndbox", corner) for corner in CORNERS}, CORNERS, one.where)
    if found is None:
        raise SourceError(f"{one.where}: field bndbox: four numbers are needed ({', '.join(CORNERS)})")
    x1, y1 = (number - 1 if number >= 1 else number for number in found[:2])
    return Label(f"{one.where}: fields {','.join(CORNERS)}", name, (x1, y1, *found[2:]))
