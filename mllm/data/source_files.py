"""What all input formats of photos and captioned images share: requests, files, errors with file, line and field."""

import json
import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mllm.boxes import Box, Frame
from mllm.errors import BoxError, FieldmarkError, SourceError
from mllm.io import files, strict_json
from mllm.io.files import is_file, no_such
from mllm.io.images import exif_orientation, image_size
from mllm.records import Photo, Sample

log = logging.getLogger(__name__)
IMAGE_SUFFIXES = tuple(".jpg .jpeg .jpe .jfif .png .webp .avif .bmp .gif .tif .tiff .ppm .pgm".split())
SIDE_SUFFIXES = tuple(".txt .caption .json .jsonl .csv .tsv .yaml .yml .xml .md .html .py .ipynb .db .ini".split())
"""Files that lie beside images in many collections."""
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
MAX_BOXES = 2_000
"""Maximum number of boxes of one image: far more than any labelled photo has, and each is compared with the others."""


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What every source may be asked for; a source uses what applies to it."""

    input: Path | None = None
    """The user's folder or file; None for a source that draws its images."""
    domain: str | None = None
    """Domain of every image, if the input does not name one per image."""
    out: Path = Path()
    """Output folder; a source that draws writes its images there."""
    seed: int = 0
    licence: str = ""
    """Terms of the images, if the input does not state them."""
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Our name of a column -> the input's (`--column entity=scientificName`)."""


R = TypeVar("R", Photo, Sample)


def distinct(rows: Iterable[R], origin: object, kind: str) -> Iterator[R]:
    """Yield the rows of an input; a repeated id is an error. `origin` and `kind` are for the message."""
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise SourceError(f"{origin}: two {kind} have the id {row.id!r}; ids must differ")
        seen.add(row.id)
        yield row


def need_input(request: SourceRequest, kind: str) -> Path:
    """Return the user's input, or raise if there is none. `kind` is "folder" or "file"."""
    path = request.input
    if path is None:
        raise SourceError(f"this source needs an input {kind}: give it with --input")
    if not (path.is_dir() if kind == "folder" else path.is_file()):
        raise SourceError(no_such(path, kind))
    return path


def need_domain(domain: str | None, where: str) -> str:
    """Return the domain, or raise if neither the input nor the request names one."""
    if not domain:
        raise SourceError(f"{where}: no domain is given; name one with --domain (e.g. bird)")
    return domain


def read_text(file: Path) -> str:
    """Return the content of a text file; an encoding other than UTF-8 is an error."""
    return files.read_text(file, SourceError)


def json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield `file:line` and content of every line of a jsonl file that is not empty; broken JSON is an error."""
    for number, text in enumerate(read_text(file).split("\n"), start=1):
        if text.strip():
            try:
                yield f"{file}:{number}", strict_json.loads(text)
            except json.JSONDecodeError as error:
                raise SourceError(f"{file}:{number}: broken JSON at column {error.colno}: {error.msg}") from None


def find_file(folder: Path, name: str) -> Path:
    r"""Return where a file lies: under its name as it is written, else with `/` for the `\` of Windows, or with accents
    in the other Unicode form (macOS writes them as letters of their own). The name as written if there is none.
    """
    slashed = name.replace("\\", "/")
    names = (name, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")))
    return next((folder / one for one in names if is_file(folder / one)), folder / name)


def images_below(root: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """Yield name (path relative to `root`) and path of every image that matches, sorted by path.

    Files and folders whose names begin with a dot are passed over. A warning counts what else is left out.
    """
    found = [path for path in root.glob(pattern) if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(root, path)]
    _warn_of_others(root, set(found))
    for path in sorted(found):
        yield path.relative_to(root).as_posix(), path


def _warn_of_others(root: Path, taken: set[Path]) -> None:
    """Log how many pictures lie where they are not looked for, and how many files are no picture that can be read."""
    left: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        suffix = path.suffix.lower()
        if path in taken or suffix in SIDE_SUFFIXES or is_hidden(root, path) or not path.is_file():
            continue
        name, reason = path.relative_to(root), f"{suffix or 'files without an ending'}: not read as pictures"
        if suffix in IMAGE_SUFFIXES:
            reason = "loose in the folder" if len(name.parts) == 1 else "in folders that are too deep"
        elif suffix in HEIC_SUFFIXES:
            reason = f"{suffix}: Pillow does not read HEIC, convert them to .jpg"
        left.setdefault(reason, []).append(name.as_posix())
    if left:
        counts = "; ".join(f"{reason}: {len(names)} ({names[0]})" for reason, names in sorted(left.items()))
        log.warning("%s: %d files passed over: %s", root, sum(map(len, left.values())), counts)


def is_hidden(root: Path, path: Path) -> bool:
    """Whether a file, or a folder that it is in, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def check_inside(root: Path, path: Path) -> None:
    """Refuse a link that leads out of a folder all of whose images are read."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise SourceError(
            f"{path}: a link that leads out of {root}, to {path.resolve()}: whoever made the folder could put any "
            "image of yours into the data. Copy the image in, or name it in a table (--source csv)"
        )


def read_size(path: Path, where: str) -> Frame:
    """Return an image's size in pixels, after EXIF rotation. `where` (file, line, field) begins the error message."""
    try:
        if not path.is_file():
            raise SourceError(f"{where}: no such image {path}")
    except OSError as error:  # a name that is too long for any file
        raise SourceError(f"{where}: no such image ({error.strerror})") from None
    try:
        return image_size(path)
    except FieldmarkError as error:
        raise SourceError(f"{where}: {error}") from error


def read_turned(path: Path, where: str, field: str, annotated: Frame | None) -> tuple[Frame, int]:
    """Return an image's size, and the EXIF rotation that its boxes still need (1: none).

    `annotated` is the size of the image on which they were drawn, as the input states it. `where` begins the errors;
    `field` holds the path.
    """
    size, orientation = read_size(path, f"{where}: field {field}"), 1
    if annotated is not None and annotated != size:
        orientation = exif_orientation(path)
        if orientation == 1 or annotated != size.oriented(orientation):
            raise SourceError(
                f"{where}: fields width, height: {annotated.width:g} x {annotated.height:g}, but {path} is"
                f" {size.width:g} x {size.height:g}; the boxes would not fit (was the image resized?)"
            )
    return size, orientation


def check_count(boxes: Sequence[object], where: str) -> None:
    """Refuse more boxes of one image than any labelled photo has."""
    if len(boxes) > MAX_BOXES:
        raise SourceError(f"{where}: {len(boxes)} boxes; at most {MAX_BOXES} per image are accepted")


def make_box(numbers: Sequence[float], frame: Frame, where: str, *, order: str, clip: bool) -> Box:
    """Make a box from pixels; `order` is "xyxy" or "xywh". `where` (file, line, field) begins the error message."""
    read = Box.from_xywh if order == "xywh" else Box.from_xyxy
    try:
        return read(numbers, frame, clip=clip)
    except BoxError as error:
        hint = "; is the order x1,y1,x2,y2, in pixels of this image?" if order == "xyxy" else ""
        if "leaves" in str(error):
            hint = "; correct it, or clip boxes to their image with --clip-boxes"
        raise SourceError(f"{where}: {error}{hint}") from None
