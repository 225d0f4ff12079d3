"""Bags of look-alikes as entries of a gallery: the images side by side, and which one each caption retrieved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm.data.bags import Bag
from mllm.errors import FieldmarkError
from mllm.evaluation.report import caption_bags
from mllm.io.drawing import data_uri
from mllm.io.images import open_image
from mllm.records import Sample, image_path, load_samples, read_jsonl

SIDE = 200


def mined(file: Path, samples_file: Path | None) -> list[Bag]:
    """Read a file of bags.

    Raises:
        FieldmarkError: no samples file is named, a bad row.
    """
    if samples_file is None:
        raise FieldmarkError(f"{file} holds bags, which name images by id; add --samples FILE, their samples file")
    return list(read_jsonl(file, Bag, unique="id"))


def mined_entries(bags: Sequence[Bag], samples_file: Path) -> list[dict[str, Any]]:
    """Return the entries of bags as they were mined, with the captions that people or data programs gave.

    Raises:
        FieldmarkError: a bag names an image that the samples file does not hold.
    """
    known = {sample.id: sample for sample in load_samples(samples_file)}
    made = []
    for bag in bags:
        if missing := [name for name in bag.members if name not in known]:
            raise FieldmarkError(f"bag {bag.id}: {samples_file} holds no sample {missing[0]!r}")
        members = [known[name] for name in bag.members]
        rows = [_image(one, samples_file, k, " ".join(one.captions[:1])) for k, one in enumerate(members, 1)]
        likeness = "" if bag.similarity is None else f", similarity {bag.similarity:.2f}"
        title = f"{len(members)} look-alikes{likeness}"
        made.append(_entry(bag.id, title, members[0], rows, bag.level or "bag", None))
    return made


def told_rows(told: caption_bags.Told) -> list[tuple[str, str, list[str]]]:
    """Return (size, bag, members in order) of every bag that a caption run was measured in, small bags first."""
    found = []
    for size in sorted(told.table["sizes"], key=int):
        members: dict[str, list[str]] = {}
        for bag, picture in told.matches(size):
            members.setdefault(bag, []).append(picture)
        found += [(size, bag, names) for bag, names in members.items()]
    return found


def told_entries(told: caption_bags.Told, chosen: Sequence[tuple[str, str, list[str]]]) -> list[dict[str, Any]]:
    """Return entries of bags with a model's captions: which image each retrieved; its score is the share right."""
    made = []
    for size, bag, names in chosen:
        matches = told.matches(size)
        rows = [_told_image(told, matches[bag, name], names, name) for name in names]
        share = sum(matches[bag, name]["hit"] for name in names) / len(names)
        right = sum(row["right"] for row in rows)
        title = f"bag {bag}: {right} of its {len(names)} captions retrieve their own image"
        outcome = "all found" if right == len(names) else "none found" if right == 0 else "some found"
        made.append(_entry(f"{size}-{bag}", title, told.samples[names[0]], rows, outcome, share))
    return made


def _told_image(told: caption_bags.Told, match: Mapping[str, Any], names: Sequence[str], name: str) -> dict[str, Any]:
    sample = told.samples[name]
    row = _image(sample, told.folder / "samples.jsonl", 1 + names.index(name), told.captions[name])
    marks = caption_bags.marks_told(told.captions[name], sample)
    return row | {"found": 1 + names.index(match["found"]), "right": match["found"] == name, "marks": marks}


def _image(sample: Sample, file: Path, number: int, caption: str) -> dict[str, Any]:
    image = open_image(image_path(file, sample))
    uri = data_uri(image, SIDE)
    return {
        "id": sample.id,
        "number": number,
        "uri": uri,
        "caption": caption,
        "found": None,
        "right": None,
        "marks": "",
    }


def _entry(
    name: str, title: str, first: Sample, rows: list[dict[str, Any]], outcome: str, share: float | None
) -> dict[str, Any]:
    return {
        "id": name,
        "domain": first.domain,
        "question": title,
        "seen": first.seen,
        "text": "",
        "outcome": outcome,
        "iou": share,
        "uri": None,
        "images": rows,
    }
