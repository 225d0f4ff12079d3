"""Hugging Face: a folder of images with metadata.jsonl or metadata.csv, parquet files, or any name of `datasets`.

Columns are image (or file_name), entity (or label), and perhaps objects, `{"bbox": [[x, y, w, h]], "category": [...]}`
in pixels; also domain, genus, licence and id. Rows are streamed; images inside parquet files are written once, below
the output.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.data import labelled_rows
from mllm.data.labelled_images import Images, LabelledImage
from mllm.data.labelled_images import photos as made_photos
from mllm.data.source_files import SourceError, json_lines
from mllm.data.sources import PhotoRequest
from mllm.io import strict_json
from mllm.io.csv_tables import read_table
from mllm.records import Photo

COLUMNS = labelled_rows.COLUMNS


@dataclass(frozen=True, slots=True)
class _Placed:
    """A row: where it is, the folder of its images, its split, and its id if neither it nor its image has one."""

    where: str
    folder: Path
    split: str
    key: str
    row: dict[str, Any]


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images in the order of the rows, file by file and split by split."""
    path = request.input
    if path is None:
        raise SourceError("this source needs a folder, a parquet file or the name of a data set: give it with --input")
    files = sorted(path.rglob("metadata.jsonl")) + sorted(path.rglob("metadata.csv")) if path.is_dir() else []
    rows, folders = labelled_rows.Rows(request.columns), dict[Path, Images]()

    def read(entry: _Placed) -> LabelledImage:
        cells, folder, key = rows.cells(entry.where, entry.row), entry.folder, entry.key
        image = cells.get("image")
        if isinstance(image, dict):
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str):
            full = Path(image)  # `datasets` gives the paths of a folder's files in full
            image = str(full.relative_to(folder.absolute())) if full.is_relative_to(folder.absolute()) else image
            key = image if folder in (path, path.parent) else (folder.relative_to(path) / image).as_posix()
            image = folders.setdefault(folder, Images(folder)).find(image)
        if not isinstance(image, Path | bytes):
            raise SourceError(f"{entry.where}: field image: no image is named; name it with --column image=NAME")
        return rows.image(entry.where, cells, image, key, entry.split)

    return made_photos("hf", _metadata(path, files) if files else _streamed(path), read, request)


def _metadata(root: Path, files: list[Path]) -> Iterator[_Placed]:
    for file in files:
        side = (*file.parent.relative_to(root).parts, "")[0]
        for where, row in _table(file) if file.suffix == ".csv" else _lines(file):
            yield _Placed(where, file.parent, side, where, row)


def _table(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    header, lines = read_table(file)
    for where, row in lines:
        if None in row or None in row.values():
            raise SourceError(f"{where}: the row does not have as many cells as the header ({len(header)})")
        yield where, {name: cell.strip() or None for name, cell in row.items()}


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, row in json_lines(file):
        yield where, strict_json.parsed(row, dict[str, Any], f"{where}: ", kind=SourceError)


def _streamed(path: Path) -> Iterator[_Placed]:
    """Yield the rows of parquet files, of a folder, or of a data set on the Hub; numbered classes get their names."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException

    folder = path.parent if path.is_file() else path
    try:
        name, files = ("parquet", str(path)) if path.is_file() else (str(path), None)
        for split, rows in load_dataset(name, data_files=files, streaming=True).items():
            for number, row in enumerate(rows.decode(False)):
                named = {name: _named(cell, (rows.features or {}).get(name)) for name, cell in row.items()}
                yield _Placed(f"{path}: {split}, row {number}", folder, str(split), f"{split}-{number}", named)
    except (ArrowException, DatasetsError, OSError, ValueError) as error:
        raise SourceError(f"{path}: `datasets` cannot read it: {error!s:.300}") from error


def _named(cell: Any, feature: Any) -> Any:
    """Return a cell with the names of numbered classes, also inside lists and objects."""
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        return feature.int2str(cell) if isinstance(cell, int) and 0 <= cell < len(feature.names) else None
    if isinstance(feature, dict) and isinstance(cell, dict):
        return {name: _named(one, feature.get(name)) for name, one in cell.items()}
    inner = getattr(feature, "feature", None)
    return [_named(one, inner) for one in cell] if inner is not None and isinstance(cell, list) else cell
