"""Data sets as their publishers document them, with small drawn images: Hugging Face, iNaturalist and more."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path

import pytest

from mllm.boxes import Box
from mllm.data.sources import SourceError
from tests.data.sources.test_documented_exports import WREN, close, write
from tests.data.sources.test_export_errors import LABELS, fiftyone, packed
from tests.data.sources.test_sources import draw, read
from tests.support.exports import META, Shot, as_inaturalist


def test_hf_metadata_csv_columns_and_folders_of_sides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for side, name in (("train", "robin"), ("test", "wren")):
        draw(tmp_path / side / "a.jpg")
        write(tmp_path / side / "metadata.csv", f"file_name,text,species,license\na.jpg,a bird,{name},CC0\n")
    with caplog.at_level(logging.WARNING):
        found = read("hf", tmp_path, domain="bird", whole_image_boxes=True, columns={"entity": "species"})
    assert {(one.id, one.entity, one.use, one.licence) for one in found} == {
        ("train/a.jpg", "robin", "train", "CC0"), ("test/a.jpg", "wren", "test", "CC0"),
    }  # fmt: skip
    assert caplog.text.count("columns that are not read: text") == 1


@pytest.mark.ci  # seconds, of which most load `datasets`
def test_hf_parquet_is_streamed_with_its_names_and_its_images_are_written_once(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Image, List, Value

    kinds = ClassLabel(names=["wren", "robin"])
    objects = {"bbox": List(List(Value("float32"), length=4)), "category": List(kinds)}
    data = draw(tmp_path / "own.jpg").read_bytes()
    row = {
        "image": {"bytes": data, "path": "own.jpg"},
        "objects": {"bbox": [[4, 2, 10, 8]], "category": [1]},
        "width": 40,
    }
    features = Features({"image": Image(), "objects": objects, "width": Value("int32")})
    Dataset.from_list([row], features=features).to_parquet(tmp_path / "set" / "train-0.parquet")
    for path in (tmp_path / "set", tmp_path / "set" / "train-0.parquet"):
        (photo,) = read("hf", path, domain="bird", out=tmp_path / "out")
        assert (photo.entity, photo.boxes) == ("robin", (WREN,))
        assert (tmp_path / "out" / photo.image).read_bytes() == data
    assert len(list((tmp_path / "out" / "photos").iterdir())) == 1
    (tmp_path / "set" / "train-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="`datasets` cannot read it"):
        read("hf", tmp_path / "set", domain="bird", out=tmp_path / "out")


def test_webdataset_json_class_numbers_and_shards(tmp_path: Path) -> None:
    image, other = draw(tmp_path / "a.jpg").read_bytes(), draw(tmp_path / "b.jpg", (60, 20)).read_bytes()
    write(tmp_path / "tars" / "classes.txt", "wren\nrobin\n")
    packed(tmp_path / "tars" / "s-0.tar", {"d/1.jpg": image, "d/1.json": json.dumps(LABELS).encode(), "d/1.txt": b"x"})
    packed(tmp_path / "tars" / "s-1.tar", {"1.cls": b"1", "1.jpg": other})
    packed(tmp_path / "tars" / "r.tar", {"1.cls": b"robin", "1.jpg": draw(tmp_path / "c.jpg", (50, 20)).read_bytes()})
    plain, first, second = read(
        "webdataset", tmp_path / "tars", domain="bird", whole_image_boxes=True, out=tmp_path / "out"
    )
    assert (plain.id, plain.entity, plain.boxes) == ("r/1", "robin", (Box(0, 0, 1, 1),))
    assert (first.id, first.entity, first.boxes) == ("s-0/d/1", "robin", (WREN,))
    assert (second.id, second.entity, second.boxes) == ("s-1/1", "robin", (Box(0, 0, 1, 1),))


def test_inaturalist_taxonomy_and_the_csv_of_the_site(tmp_path: Path) -> None:
    shot = Shot(draw(tmp_path / "a.jpg"), (40, 20), "Corvus corax", ())
    (photo,) = read("inaturalist", as_inaturalist(tmp_path / "i", [shot]), whole_image_boxes=True)
    assert (photo.domain, photo.genus, photo.licence, photo.entity) == ("bird", "Kind", "CC0", "Corvus corax")
    (photo,) = read(
        "inaturalist", tmp_path / "i" / "train.json", whole_image_boxes=True, columns={"entity": "common_name"}
    )
    assert photo.entity == "common 0"
    text = "id,license,image_url,scientific_name,common_name,iconic_taxon_name\n" + "".join(
        f"{key},CC-BY,https://static.example.org/photos/{key}/medium.jpg,Corvus corax,Raven,Aves\n"
        for key in (101, 102)
    )
    draw(tmp_path / "images" / "101.jpg")
    file = write(tmp_path / "observations.csv", text)
    (photo,) = read("inaturalist", file, whole_image_boxes=True, columns={"entity": "common_name"})
    assert (photo.id, photo.entity, photo.domain, photo.licence) == ("101", "Raven", "bird", "CC-BY")


def test_darwin_core_zip_files_defaults_several_media_and_archives_without_them(tmp_path: Path) -> None:
    occurrences = "id\tscientificName\tgenus\n1\tCorvus corax\tCorvus\n2\tParus major\tParus\n"
    media = "coreid\ttype\tidentifier\tlicense\n" + "".join(
        f"{key}\t{kind}\thttps://example.org/{name}\tCC0\n"
        for key, kind, name in ((1, "StillImage", "x.jpg"), (1, "StillImage", "y.jpg"), (2, "Sound", "z.mp3"))
    )
    for name in ("x.jpg", "images/y.jpg", "images/2.png"):
        draw(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "dwca.zip", "w") as archive:
        for name, text in (("meta.xml", META), ("occurrence.txt", occurrences), ("multimedia.txt", media)):
            archive.writestr(name, text)
    found = read("darwin_core", tmp_path / "dwca.zip", whole_image_boxes=True)
    assert [(one.id, one.entity, one.genus, one.domain, one.licence) for one in found] == [
        ("1", "Corvus corax", "Corvus", "bird", "CC0"), ("1-2", "Corvus corax", "Corvus", "bird", "CC0"),
    ]  # fmt: skip
    write(tmp_path / "meta.xml", META[: META.index(" <extension")] + "</archive>")
    write(tmp_path / "occurrence.txt", occurrences)
    (photo,) = read("darwin_core", tmp_path, whole_image_boxes=True, columns={"entity": "genus"})
    assert (photo.id, photo.entity, Path(photo.image).name) == ("2", "Parus", "2.png")


def test_fiftyone_detections_classifications_and_tags(tmp_path: Path) -> None:
    (photo,) = read("fiftyone", fiftyone(tmp_path), domain="bird")
    assert (photo.entity, photo.id) == ("robin", "data/a.jpg") and close(photo.boxes[0])
    named = {"_cls": "Classification", "label": "owl"}
    fiftyone(tmp_path, lambda sample: sample.update(kind=named))
    (photo,) = read(
        "fiftyone", tmp_path / "samples.json", domain="bird", whole_image_boxes=True, columns={"entity": "kind"}
    )
    assert (photo.entity, photo.boxes) == ("owl", (Box(0, 0, 1, 1),))
    outline = {"_cls": "Polylines", "polylines": [{"label": "owl", "points": [[[0.1, 0.1], [0.35, 0.2], [0.2, 0.5]]]}]}
    fiftyone(tmp_path, lambda sample: sample.update(ground_truth=outline))
    assert close(read("fiftyone", tmp_path, domain="bird")[0].boxes[0])


def test_csv_columns_under_other_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "a.jpg")
    file = write(tmp_path / "t.csv", "photo,scientificName,entity,beak\na.jpg,Parus major,7,red\n")
    given = {"image": "photo", "entity": "scientificName"}
    with caplog.at_level(logging.WARNING):
        (photo,) = read("csv", file, domain="bird", whole_image_boxes=True, columns=given)
    assert photo.entity == "Parus major" and "t.csv:1: columns that are not read: entity, beak" in caplog.text
    with pytest.raises(SourceError, match=r"t.csv:1: column 'kind' is missing \(--column entity=kind\); found: photo"):
        read("csv", file, domain="bird", columns={"entity": "kind", "image": "photo"})


@pytest.mark.ci
def test_hf_parquet_takes_no_image_from_outside_its_folder(tmp_path: Path) -> None:
    from datasets import Dataset

    outside = draw(tmp_path / "own" / "secret.jpg")
    for inside in (tmp_path / "set" / "train.parquet", tmp_path / "set"):
        (tmp_path / "set").mkdir(exist_ok=True)
        row = {"image": {"bytes": None, "path": str(outside)}, "label": "robin"}
        Dataset.from_list([row]).to_parquet(tmp_path / "set" / "train.parquet")
        with pytest.raises(SourceError, match="row 0: field image: no such image"):
            read("hf", inside, domain="bird", whole_image_boxes=True)
    draw(tmp_path / "set" / "secret.jpg")
    (photo,) = read("hf", tmp_path / "set" / "train.parquet", domain="bird", whole_image_boxes=True)
    assert Path(photo.image) == tmp_path / "set" / "secret.jpg"
