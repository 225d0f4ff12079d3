"""iNaturalist: the json of its competitions, or the csv that the site exports. Neither has boxes.

A category's genus and super-category are the photo's genus and domain. `--column entity=common_name` takes another
field of the categories, or another column of the csv. The csv names addresses: images are looked for under the last
part of them, and as `images/<id>.jpg`; rows without one are counted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from mllm.data.coco_files import CocoCategory, CocoImage, CocoLicence, Id, Placed, by_id
from mllm.data.labelled_images import Images, Label, LabelledImage, domain_of, stated_size
from mllm.data.labelled_images import photos as made_photos
from mllm.data.source_files import SourceError, need_input
from mllm.data.sources import PhotoRequest
from mllm.io import strict_json
from mllm.io.csv_tables import Row, checked_rows, read_table
from mllm.records import Photo

EXPORTED = {
    "entity": "scientific_name", "image": "image_url", "domain": "iconic_taxon_name", "genus": "taxon_genus_name",
    "licence": "license", "id": "id",
}  # fmt: skip
"""Our name of a column -> the site's."""
COLUMNS = tuple(EXPORTED)


class _Category(CocoCategory, extra="allow"):
    genus: str | None = None


class _Annotation(BaseModel):
    image_id: Id
    category_id: Id


class _File(BaseModel):
    images: Annotated[list[CocoImage], Field(min_length=1)]
    annotations: Annotated[list[_Annotation], Field(min_length=1)]
    categories: list[_Category]
    licenses: list[CocoLicence] = []


def photos(request: PhotoRequest) -> Iterator[Photo]:
    """Yield the images in the order of the file."""
    file = need_input(request, "file")
    return _exported(file, request) if file.suffix.lower() == ".csv" else _competition(file, request)


def _competition(file: Path, request: PhotoRequest) -> Iterator[Photo]:
    content: _File = strict_json.read(file, _File, kind=SourceError, nan=True)
    images, categories = by_id(file, "images", content.images), by_id(file, "categories", content.categories)
    licences = {row.id: row.name for row in content.licenses}
    found, name_field = Images(file.parent), request.columns.get("entity", "name")
    shown: dict[Any, list[tuple[Label, _Category]]] = {}
    for index, row in enumerate(content.annotations):
        where = f"{file}: annotations[{index}]"
        if row.image_id not in images or row.category_id not in categories:
            raise SourceError(f"{where}: fields image_id, category_id: not in the lists of images and categories")
        place, category = categories[row.category_id]
        name = getattr(category, name_field, None)
        if not isinstance(name, str) or not name:
            raise SourceError(f"{place}: field {name_field}: a name is needed, got {name!r:.60}")
        shown.setdefault(row.image_id, []).append((Label(where, name), category))

    def read(entry: tuple[Any, Placed[CocoImage]]) -> LabelledImage:
        key, (where, row) = entry
        marks = shown.get(key, [])
        category = marks[0][1] if marks else None
        return LabelledImage(
            where,
            str(key),
            found.find(row.file_name, str(key)),
            [label for label, _ in marks],
            path_field="file_name",
            size=stated_size(row.width, row.height),
            domain=domain_of(category.supercategory or "") if category else None,
            genus=category.genus if category else None,
            licence=licences.get(row.license, ""),
        )

    return made_photos("inaturalist", images.items(), read, request)


def _exported(file: Path, request: PhotoRequest) -> Iterator[Photo]:
    header = read_table(file)[0]
    columns = {name: theirs for name, theirs in EXPORTED.items() if theirs in header} | dict(request.columns)
    images = Images(file.parent)

    def read(placed: tuple[str, Row]) -> LabelledImage | None:
        where, row = placed
        path = images.find(row.get("image") or row["id"], row["id"])
        labels = [Label(f"{where}: field entity", row["entity"])] if row["entity"] else []
        domain, genus = domain_of(row.get("domain", "")), row.get("genus")
        found = LabelledImage(
            where, row["id"], path, labels, domain=domain, genus=genus, licence=row.get("licence", "")
        )
        return found if path.is_file() else None

    rows = checked_rows(file, ("id", "entity"), COLUMNS[1:-1], filled=("id",), columns=columns)
    return made_photos("inaturalist", rows, read, request)
