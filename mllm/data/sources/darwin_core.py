"""Darwin Core Archive (GBIF, iNaturalist): a zip file or folder with meta.xml, occurrences, and their media.

The entity is `scientificName`, or another term with `--column entity=species`; genus, class (or kingdom) and licence
come along. Images lie beside the archive or in `images/`, under the last part of their address or as `<id>.jpg`; media
without a file are counted. Members of a zip file are read in place and never unpacked.
"""

import csv
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from mllm.data.labelled_images import Images, Label, LabelledImage, domain_of
from mllm.data.labelled_images import photos as made_photos
from mllm.data.source_files import SourceError, no_such
from mllm.data.sources import PhotoRequest
from mllm.io import strict_xml
from mllm.io.csv_tables import Placed, columns_read
from mllm.io.strict_xml import Element
from mllm.records import Photo

TERMS = {
    "entity": ("scientificName",), "genus": ("genus",), "domain": ("class", "kingdom"),
    "licence": ("license", "rights"), "image": ("associatedMedia",),
}  # fmt: skip
"""Our name of a column -> the terms that it may be, the best first."""
COLUMNS = tuple(TERMS)
MEDIA = {
    "image": ("identifier", "accessURI"),
    "licence": ("license", "rights", "UsageTerms"),
    "type": ("type", "format"),
}
LONGEST_LINE, LARGEST_META = 10_000_000, 10_000_000
MARKS = {"\\t": "\t", "\\n": "\n", "\\r\\n": "\r\n"}


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images in the order of the media, or of the occurrences if media are not listed."""
    path = request.input
    if path is None or not path.exists():
        raise SourceError(no_such(path, "archive") if path else "this source needs an archive: give it with --input")
    archive = _Archive(path)
    core, images = archive.table("core"), Images(path if path.is_dir() else path.parent)
    if core is None:
        raise SourceError(f"{archive.meta.where}: no element <core>; is it a Darwin Core Archive?")
    media = archive.table("extension")
    columns = request.columns
    occurrences = {row["id"]: (where, row) for where, row in archive.rows(core, "id", TERMS, columns)}
    listed = archive.rows(media, "coreid", MEDIA, {}) if media is not None else _own_media(occurrences)
    seen: dict[str, int] = {}

    def read(placed: Placed) -> LabelledImage | None:
        where, row = placed
        key, kind = row["id"], row.get("type", "").lower()
        if key not in occurrences:
            raise SourceError(f"{where}: field coreid: {key!r:.60} is not the id of an occurrence")
        place, found = occurrences[key]
        seen[key] = seen.get(key, 0) + 1
        last = row.get("image") or key
        image = images.find(last, key if seen[key] == 1 else "")
        if not image.is_file() or (kind and "image" not in kind):
            return None
        return LabelledImage(
            where,
            key if seen[key] == 1 else f"{key}-{seen[key]}",
            image,
            [Label(f"{place}: field entity", found["entity"])] if found.get("entity") else [],
            domain=domain_of(found.get("domain", "")),
            genus=found.get("genus"),
            licence=row.get("licence") or found.get("licence", ""),
        )

    return made_photos("darwin_core", listed, read, request)


def _own_media(occurrences: Mapping[str, Placed]) -> Iterator[Placed]:
    """Yield the media that occurrences name themselves, divided by bars, or nothing but their id."""
    for key, (where, row) in occurrences.items():
        for name in row.get("image", "").split("|"):
            yield where, {"id": key, "image": name.strip()}


class _Archive:
    """The files of an archive, in a folder or a zip file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened("meta.xml") as file:
            data = file.read(LARGEST_META + 1)
        if len(data) > LARGEST_META:
            raise SourceError(f"{path}: meta.xml has more than {LARGEST_META} bytes")
        self.meta = strict_xml.loads(data, path / "meta.xml", SourceError)

    def table(self, tag: str) -> Element | None:
        """Return the description of the occurrences, or of the media."""
        wanted = "multimedia" if tag == "extension" else ""
        return next((one for one in self.meta.all(tag) if wanted in one.attributes.get("rowType", "").lower()), None)

    def rows(
        self, table: Element, key: str, terms: Mapping[str, tuple[str, ...]], columns: Mapping[str, str]
    ) -> Iterator[Placed]:
        """Yield `file:line` and the cells of a table, under our names; `id` is what joins tables."""
        name = table.text_of("files", "location")
        indices = {_term(one): one.attributes["index"] for one in table.all("field") if "index" in one.attributes}
        defaults = {_term(one): one.attributes.get("default", "") for one in table.all("field")}
        also = {ours: next((one for one in others if one in defaults), "") for ours, others in terms.items()}
        wanted = {ours: theirs for ours, theirs in also.items() if theirs} | dict(columns)
        taken = columns_read(f"{self.path / name}:1", list(defaults), (), wanted)
        places = {ours: _index(indices[theirs], table) for ours, theirs in taken.items() if theirs in indices}
        fixed = {ours: defaults[theirs] for ours, theirs in taken.items()}
        joined = next((one.attributes.get("index", "") for one in table.all(key)), "")
        places["id"] = _index(joined, table)
        with self._opened(name) as file:
            for where, cells in self._cells(file, table, self.path / name):
                if max(places.values()) >= len(cells):
                    raise SourceError(
                        f"{where}: {len(cells)} cells, but meta.xml names number {max(places.values()) + 1}"
                    )
                yield where, fixed | {ours: cells[place].strip() for ours, place in places.items()}

    def _cells(self, file: IO[bytes], table: Element, where: Path) -> Iterator[tuple[str, list[str]]]:
        given = table.attributes
        quote = given.get("fieldsEnclosedBy", '"')
        mark = MARKS.get(given.get("fieldsTerminatedBy", ","), given.get("fieldsTerminatedBy", ","))
        skipped = _index(given.get("ignoreHeaderLines", "") or "0", table)
        try:
            text = TextIOWrapper(file, encoding=given.get("encoding", "") or "UTF-8", newline="")
            quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
            reader = csv.reader(_lines(text, where), delimiter=mark, quotechar=quote or None, quoting=quoting)
            for cells in reader:
                if reader.line_num > skipped and cells:
                    yield f"{where}:{reader.line_num}", cells
        except (csv.Error, UnicodeError, LookupError, TypeError) as error:  # TypeError: a mark of several letters
            raise SourceError(f"{where}: cannot be read as meta.xml describes it: {error}") from None

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the archive. Raises SourceError: no such file, a name that leads out, a broken zip file."""
        if not name or "/" in name or "\\" in name or name == "..":
            raise SourceError(f"{self.path / 'meta.xml'}: field location: {name!r:.200} is not a file of the archive")
        try:
            if self.path.is_dir():
                with (self.path / name).open("rb") as file:
                    yield file
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                    yield file
        except (KeyError, FileNotFoundError):
            raise SourceError(f"{self.path}: no file {name} in it; is it a Darwin Core Archive?") from None
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:  # RuntimeError: it needs a password
            raise SourceError(f"{self.path}: not a complete zip file ({error}); download it again") from None


def _lines(file: TextIOWrapper, where: Path) -> Iterator[str]:
    """Yield lines, none so long that it would fill the memory."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise SourceError(f"{where}: a line has more than {LONGEST_LINE} letters")
        yield line


def _term(field: Element) -> str:
    """Return the name of a term without the address in front of it."""
    return field.attributes.get("term", "").rpartition("/")[2]


def _index(text: str, table: Element) -> int:
    if not text.isdecimal() or len(text) > 4:
        raise SourceError(f"{table.where}: field index: a small whole number is needed, got {text!r:.60}")
    return int(text)
