"""YOLO: data.yaml as Ultralytics reads it, and a text file of labels for each image.

A line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...` for an outline, in shares of the image. Labels lie in
`labels/` where images lie in `images/`, else beside their image. A folder without a yaml has `classes.txt`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mllm.boxes import Frame
from mllm.data.labelled_images import SIDES, Label, LabelledImage, around
from mllm.data.labelled_images import photos as made_photos
from mllm.data.source_files import SourceError, check_inside, images_below, need_input, read_text
from mllm.data.sources import PhotoRequest
from mllm.io import strict_json, strict_yaml
from mllm.io.csv_tables import numbers_of
from mllm.io.files import is_file
from mllm.records import Photo, Split

SHARES = Frame(1, 1)
CENTRE = ("cx", "cy", "w", "h")
Paths = str | list[str] | None


class _Data(BaseModel):
    """What is read of data.yaml."""

    names: dict[int, str]
    path: str = ""
    train: Paths = None
    val: Paths = None
    test: Paths = None
    kpt_shape: list[int] | None = None


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the labelled images, side by side in the order of their paths."""
    file = _data_file(request)
    data, root = _read(file), file.parent
    listed: dict[Path, Split | None] = {}
    for side in ("train", "val", "test"):
        entries = getattr(data, side) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            for path in _images(file, side, data.path, entry):
                # An image that is listed on two sides is on neither.
                listed[path] = SIDES[side] if listed.get(path, SIDES[side]) == SIDES[side] else None
    if not listed:
        raise SourceError(
            f"{file}: fields train, val, test: no image is listed; name folders of images or lists of them"
        )

    def read(entry: tuple[Path, Split | None]) -> LabelledImage:
        path, side = entry
        check_inside(root, path)
        name = path.relative_to(root).as_posix()
        labels = list(_labels(_label_file(path, root), data))
        return LabelledImage(f"{file}: image {name}", name, path, labels, split=side)

    return made_photos("yolo", listed.items(), read, request)


def _data_file(request: PhotoRequest) -> Path:
    """Return the yaml, or classes.txt where there is none."""
    if request.input is None or not request.input.is_dir():
        return need_input(request, "file")
    found = sorted(path for pattern in ("*.yaml", "*.yml") for path in request.input.glob(pattern))
    if len(found) > 1:
        raise SourceError(f"{request.input}: {found[0].name} or {found[1].name}? Name one of them with --input")
    if not found and not (request.input / "classes.txt").is_file():
        raise SourceError(f"{request.input}: neither data.yaml nor classes.txt is there, so no class has a name")
    return found[0] if found else request.input / "classes.txt"


def _read(file: Path) -> _Data:
    if file.suffix == ".txt":
        names = dict(enumerate(line.strip() for line in read_text(file).splitlines() if line.strip()))
        return _Data(names=names, train="images" if (file.parent / "images").is_dir() else ".")
    content = strict_yaml.read(file, SourceError)
    if isinstance(content, dict) and isinstance(content.get("names"), list):
        content["names"] = dict(enumerate(content["names"]))
    return strict_json.parsed(content, _Data, f"{file}: ", kind=SourceError)


def _images(file: Path, side: str, base: str, entry: str) -> list[Path]:
    """Return the images of a folder or a list that data.yaml names."""
    root, named = file.parent, _inside(file.parent, base, entry)
    if named is None:
        raise SourceError(
            f"{file}: field {side}: no folder or list {entry!r:.200} in {root}; put {file.name} into the folder of the "
            "data set, and write its paths relative to it"
        )
    if named.is_dir():
        return [path for _, path in images_below(named, "**/*")]
    found: list[Path] = []
    for number, line in enumerate(read_text(named).splitlines(), start=1):
        if name := line.strip():
            beside = named.parent.relative_to(root).as_posix()
            path = _inside(root, beside, name) or _inside(root, base, name)
            if path is None:
                raise SourceError(f"{named}:{number}: field image: no such image {name!r:.200} in {root}")
            found.append(path)
    return found


def _inside(root: Path, base: str, entry: str) -> Path | None:
    """Return what `entry` names inside the folder, under `base` or not; Roboflow writes `../` in front of it."""
    top = root.resolve()
    for start in dict.fromkeys((base, "")):
        for end in dict.fromkeys((entry, entry.removeprefix("../"))):
            path = root / start / end
            if (path.is_dir() or is_file(path)) and path.resolve().is_relative_to(top):
                return root / path.resolve().relative_to(top) if ".." in path.parts or Path(end).is_absolute() else path
    return None


def _label_file(image: Path, root: Path) -> Path:
    """Return where an image's labels lie: its last folder called `images` becomes `labels`."""
    parts = list(image.relative_to(root).with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    there = root.joinpath(*parts)
    return there if is_file(there) else image.with_suffix(".txt")


def _labels(file: Path, data: _Data) -> Iterator[Label]:
    if not is_file(file):
        return  # YOLO's way to say that an image shows nothing
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            yield _label(f"{file}:{number}", line.split(), data)


def _label(where: str, cells: list[str], data: _Data) -> Label:
    number, numbers = cells[0], cells[1:]
    name: Any = data.names.get(int(number)) if number.isdecimal() and len(number) < 9 else None
    if name is None:
        raise SourceError(f"{where}: field class: {number!r:.60} is not in names (0 to {max(data.names, default=0)})")
    if data.kpt_shape or len(numbers) == 4:  # the keypoints of a pose follow its box
        cx, cy, w, h = numbers_of(dict(zip(CENTRE, numbers, strict=False)), CENTRE, where) or (0, 0, 0, 0)
        return Label(f"{where}: fields cx,cy,w,h", name, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), frame=SHARES)
    if len(numbers) < 6 or len(numbers) % 2:
        raise SourceError(
            f"{where}: {len(numbers)} numbers after the class; a box has 4, an outline an x and a y a point"
        )
    columns = tuple(f"{axis}{point}" for point in range(1, len(numbers) // 2 + 1) for axis in "xy")
    found = numbers_of(dict(zip(columns, numbers, strict=True)), columns, where) or ()
    return Label(f"{where}: outline", name, around(list(zip(found[::2], found[1::2], strict=True))), frame=SHARES)
