"""WebDataset: tar files in which files of one name make a sample: `a.jpg`, and its labels in `a.json` or `a.cls`.

The json holds entity (or label) and perhaps objects, as source `hf` has them; `.cls` a name, or a number that
`classes.txt` or `classnames.txt` beside the tar files names. Members are read in their order and never unpacked; images
are written once, below the output.
"""

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mllm.data import labelled_rows
from mllm.data.labelled_images import LabelledImage
from mllm.data.labelled_images import photos as made_photos
from mllm.data.source_files import IMAGE_SUFFIXES, SourceError, no_such, read_text
from mllm.data.sources import PhotoRequest
from mllm.io import strict_json
from mllm.records import Photo

COLUMNS = tuple(name for name in labelled_rows.COLUMNS if name != "image")
MOST_BYTES = 200_000_000
"""Largest sample that is read."""
Sample = tuple[str, str, dict[str, bytes]]
"""Where a sample is, its id, and its members by their endings."""


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the samples of a tar file, or of all below a folder, in their order."""
    path = request.input
    files = [path] if path is not None else []
    if path is not None and path.is_dir():
        files = sorted(file for kind in ("*.tar", "*.tar.gz", "*.tgz") for file in path.rglob(kind))
    if path is None or not files or not files[0].is_file():
        raise SourceError(no_such(path, "tar file") if path else "this source needs tar files: give them with --input")
    folder = files[0].parent
    lists = [folder / name for name in ("classes.txt", "classnames.txt") if (folder / name).is_file()]
    names = read_text(lists[0]).split("\n") if lists else []
    rows = labelled_rows.Rows(request.columns)

    def read(sample: Sample) -> LabelledImage:
        where, key, members = sample
        image = next((data for ending, data in members.items() if f".{ending}".endswith(IMAGE_SUFFIXES)), None)
        if image is None:
            raise SourceError(f"{where}: no image among {', '.join(members)}")
        row = _json(members["json"], f"{where}.json") if "json" in members else {}
        if "cls" in members:
            row["label"] = _class(members["cls"], names, f"{where}.cls")
        return rows.image(where, rows.cells(where, row), image, key)

    return made_photos("webdataset", (sample for file in files for sample in _samples(file)), read, request)


def _samples(file: Path) -> Iterator[Sample]:
    """Yield the samples of a tar file: neighbours whose names are the same up to the first dot of the last part."""
    last, members = "", dict[str, bytes]()
    try:
        with tarfile.open(file, "r|*") as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                if place.is_absolute() or ".." in place.parts:
                    raise SourceError(f"{file}: member {member.name!r:.200}: its name leads out of the archive")
                stem, _, ending = place.name.partition(".")
                if not member.isfile() or not stem or not ending:
                    continue
                key = (place.parent / stem).as_posix()
                if key != last and members:
                    yield f"{file}: {last}", f"{file.name.partition('.')[0]}/{last}", members
                    members = {}
                if member.size + sum(map(len, members.values())) > MOST_BYTES:
                    raise SourceError(f"{file}: sample {key!r:.200}: more than {MOST_BYTES} bytes")
                data = archive.extractfile(member)
                last, members[ending.lower()] = key, data.read() if data else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise SourceError(f"{file}: not a complete tar file ({error!s:.200})") from None
    if members:
        yield f"{file}: {last}", f"{file.name.partition('.')[0]}/{last}", members


def _json(data: bytes, where: str) -> dict[str, Any]:
    try:
        return dict(strict_json.parsed(strict_json.loads(data), dict[str, Any], f"{where}: ", kind=SourceError))
    except json.JSONDecodeError as error:
        raise SourceError(f"{where}:{error.lineno}: broken JSON: {error.msg}") from None


def _class(data: bytes, names: list[str], where: str) -> str:
    text = data.decode("utf-8", "replace").strip()
    if not text.isdecimal():
        return text
    if len(text) > 8 or int(text) >= len(names) or not names[int(text)].strip():
        raise SourceError(f"{where}: class {text:.60} has no name; write the names into classes.txt, one a line")
    return names[int(text)].strip()
