"""The 84 COCO photos with five captions each, end to end: blended, put into bags, and people's captions judged.

Plumbing: captions are blended by rules, and the encoders are the pocket world's, which never saw a photo.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from data_synth import bags as bags_program
from data_synth import captions
from eval import truematch
from mllm.data.bags import Bag
from mllm.io.jsonl import read_jsonl, write_jsonl
from mllm.metrics import claims
from mllm.records import SPLITS, Sample, load_samples


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's mapping of captions as a table, each photo under its own terms."""
    folder = shared_data / "coco_ccby_sample"
    facts = json.loads((folder / "captions.json").read_text())
    with (folder / "attribution.csv").open() as rows:
        terms = {row["image"]: f"{row['licence']} {row['licence_url']}" for row in csv.DictReader(rows)}
    out = tmp_path_factory.mktemp("coco")
    (out / "photos").symlink_to(folder / "images")
    with (out / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "id", "licence"])
        for image, captions_of in facts.items():
            table.writerows([f"photos/{image}", text, Path(image).stem, terms[image]] for text in captions_of)
    return out


@pytest.fixture(scope="module")
def blended(photos: Path) -> Path:
    captions.main(
        ["--source", "csv", "--input", str(photos / "captions.csv"), "--strategy", "blend", "--teacher", "cards",
         "--most-words", "100", "--out", str(photos / "data")]
    )  # fmt: skip
    return photos / "data"


def samples(folder: Path) -> list[Sample]:
    return [sample for side in SPLITS for sample in load_samples(folder / f"{side}.jsonl")]


@pytest.mark.ci
def test_every_photo_has_one_caption_that_lost_nothing_and_added_nothing(blended: Path) -> None:
    rows = samples(blended)
    assert len(rows) == 84
    for row in rows:
        given = row.human_captions
        assert claims.kept_share(given, row.captions[0]) == 1.0 and not claims.added(given, row.captions[0])
    facts = json.loads((blended / "manifest.json").read_text())
    assert "put together by rules" in facts["plumbing"] and "Plumbing" in (blended / "README.md").read_text()
    assert sum(facts["licences"].values()) == 84 and all("creativecommons.org" in terms for terms in facts["licences"])
    assert len((blended / "attribution.csv").read_text().splitlines()) == 85


@pytest.mark.ci
def test_bags_are_mined_and_peoples_captions_judged_in_them(blended: Path, photos: Path) -> None:
    every, mined, result = photos / "every.jsonl", photos / "bags", photos / "truematch.json"
    write_jsonl(every, samples(blended))
    bags_program.main(
        ["--samples", str(every), "--out", str(mined), "--sizes", "3", "--sizes", "5", "--levels",
         "medium", "--lower", "0", "--upper", "0.999", "--cache", str(photos / "vectors")]
    )  # fmt: skip
    found = {size: list(read_jsonl(mined / f"bags-{size}-medium.jsonl", Bag)) for size in (3, 5)}
    assert len(found[3]) >= 10 and len(found[5]) >= 5 and (mined / "sheet.png").is_file()
    people = photos / "people.json"
    people.write_text(json.dumps({row.id: row.human_captions[0] for row in samples(blended)}))
    truematch.main(
        ["--captions", str(people), "--samples", str(every), "--bags",
         *(str(mined / f"bags-{size}-medium.jsonl") for size in (3, 5)), "--scorer", "pocket-judge",
         "--out", str(result)]
    )  # fmt: skip
    facts = json.loads(result.read_text())
    for size in (3, 5):
        assert len(facts["matches"][str(size)]) == size * len(found[size]), "every photo of every bag is judged"
