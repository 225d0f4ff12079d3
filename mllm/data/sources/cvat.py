"""CVAT for images 1.1: annotations.xml, beside its images or beside `images/`.

Boxes, ellipses and outlines are read, and tags, which stand for the whole image. An attribute names the entity with
`--column entity=ATTRIBUTE`; otherwise the label does. Occluded things are kept, and noted.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mllm.boxes import Numbers
from mllm.data.labelled_images import (
    SIDES,
    Images,
    Label,
    LabelledImage,
    around,
    stated_size,
    turned,
)  # fmt: skip
from mllm.data.labelled_images import (
    photos as made_photos,
)
from mllm.data.source_files import SourceError, need_input
from mllm.data.sources import PhotoRequest
from mllm.io import strict_xml
from mllm.io.csv_tables import numbers_of
from mllm.io.strict_xml import Element
from mllm.records import Photo

COLUMNS = ("entity",)
PLACES = {"box": ("xtl", "ytl", "xbr", "ybr"), "ellipse": ("cx", "cy", "rx", "ry")}
OUTLINES = ("polygon", "polyline")


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images in the order of the file."""
    given = request.input
    file = given / "annotations.xml" if given is not None and given.is_dir() else need_input(request, "file")
    top = strict_xml.read(file, SourceError)
    entries = top.all("image")
    if top.all("track") or not entries:
        raise SourceError(f"{top.where}: no element <image>; export the task as CVAT for images 1.1")
    reader = _Reader(file, request)
    return made_photos("cvat", entries, reader.read, request)


class _Reader:
    """Reads the images of an export."""

    def __init__(self, file: Path, request: PhotoRequest) -> None:
        self.images, self.attribute = Images(file.parent), request.columns.get("entity")

    def read(self, image: Element) -> LabelledImage:
        name, subset = image.attributes.get("name", ""), image.attributes.get("subset", "")
        if not name:
            raise SourceError(f"{image.where}: field name: the image has no name")
        key = image.attributes.get("id", name)
        path = self.images.find(name, key)
        if subset and not path.is_file():
            path = self.images.find(f"{subset}/{name}")
        size = {side: image.attributes.get(side, "") for side in ("width", "height")}
        marks = [one for one in image.children if one.tag in (*PLACES, *OUTLINES, "tag")]
        hidden = sum(one.attributes.get("occluded") == "1" for one in marks)
        others = Counter(one.tag for one in image.children if one not in marks)
        return LabelledImage(
            image.where,
            f"{subset}/{name}" if subset else name,
            path,
            [Label(_place(one), self._name(one), _numbers(one)) for one in marks],
            path_field="name",
            size=stated_size(*(numbers_of(size, tuple(size), image.where) or (None, None))),
            split=SIDES.get(subset.lower()),
            notes=({"occluded": hidden} if hidden else {}) | ({"not read": dict(others)} if others else {}),
        )

    def _name(self, one: Element) -> str:
        if self.attribute is None:
            name = one.attributes.get("label", "")
        else:
            name = next(
                (each.text for each in one.all("attribute") if each.attributes.get("name") == self.attribute), ""
            )
        if not name.strip():
            raise SourceError(f"{one.where}: field {self.attribute or 'label'}: the {one.tag} has none")
        return name.strip()


def _place(one: Element) -> str:
    return f"{one.where}: fields {','.join(PLACES.get(one.tag, ('points',)))}"


def _numbers(one: Element) -> Numbers | tuple[()]:
    """Return x1, y1, x2, y2 in pixels; boxes and ellipses are turned about their middle."""
    if one.tag == "tag":
        return ()
    if one.tag in OUTLINES:
        points = [point.split(",") for point in one.attributes.get("points", "").split(";")]
        return around(_found(dict(zip("xy", (*point, ""), strict=False)), ("x", "y"), one) for point in points)
    a, b, c, d = _found(one.attributes, PLACES[one.tag], one)
    corners = (a - c, b - d, a + c, b + d) if one.tag == "ellipse" else (a, b, c, d)
    angle = numbers_of(one.attributes, ("rotation",), one.where) or (0,)
    return turned(corners, angle[0], ((corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2))


def _found(row: dict[str, str], columns: tuple[str, ...], one: Element) -> tuple[float, ...]:
    numbers = numbers_of(row, columns, one.where)
    if numbers is None:
        raise SourceError(f"{_place(one)}: numbers are needed, the {one.tag} has none")
    return numbers
