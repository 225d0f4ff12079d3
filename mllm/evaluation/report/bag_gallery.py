"""Bags of look-alikes as entries of a gallery: the images side by side, and which one each caption retrieved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm.data.bags import Bag
from mllm.errors import FieldmarkError
from mllm.evaluation.report.caption_bags import JudgedCaptions
from mllm.evaluation.report.pages import Entry
from mllm.io.drawing import data_uri
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl
from mllm.records import Sample, image_path, load_samples

SIDE = 200


def mined(file: Path, samples_file: Path | None) -> list[Bag]:
    """Read a file of bags.

    Raises:
        FieldmarkError: no samples file is named, or a bad row.
    """
    if samples_file is None:
        raise FieldmarkError(f"{file} holds bags, which name images by id; add --samples FILE, their samples file")
    return list(read_jsonl(file, Bag, unique="id"))


def mined_entries(bags: Sequence[Bag], samples_file: Path) -> list[Entry]:
    """Return the entries of mined bags, with the captions of the samples file.

    Raises:
        FieldmarkError: a bag names an image that the samples file lacks.
    """
    known = {sample.id: sample for sample in load_samples(samples_file)}
    entries = []
    for bag in bags:
        if missing := [name for name in bag.members if name not in known]:
            raise FieldmarkError(f"bag {bag.id}: {samples_file} holds no sample {missing[0]!r}")
        members = [known[name] for name in bag.members]
        rows = [
            {**_image(one, samples_file, k), "caption": " ".join(one.captions[:1]), **_NO_MATCH}
            for k, one in enumerate(members, 1)
        ]
        similarity = "" if bag.similarity is None else f", similarity {bag.similarity:.2f}"
        title = f"{len(members)} look-alikes{similarity}"
        outcome, first = bag.level or "bag", members[0]
        entries.append(Entry(bag.id, first.domain, title, first.seen, outcome, None, images=tuple(rows)))
    return entries


def judged_bags(run: JudgedCaptions) -> list[tuple[str, str, list[str]]]:
    """Return (size, bag, members in order) of every bag in which captions were judged, small bags first."""
    return [(size, bag, names) for size in run.sizes for bag, names in run.bags(size).items()]


def judged_entries(run: JudgedCaptions, chosen: Sequence[tuple[str, str, list[str]]]) -> list[Entry]:
    """Return entries of bags with a model's captions and the image each retrieved; the score is the share right."""
    entries = []
    for size, bag, names in chosen:
        rows = [
            _image(run.samples[name], run.folder / "samples.jsonl", k) | run.match_row(size, bag, name, names)
            for k, name in enumerate(names, 1)
        ]
        matches = run.matches(size)
        share = sum(matches[bag, name]["hit"] for name in names) / len(names)
        right = sum(row["right"] for row in rows)
        title = f"bag {bag}: {right} of its {len(names)} captions retrieve their own image"
        outcome = "all found" if right == len(names) else "none found" if right == 0 else "some found"
        first = run.samples[names[0]]
        entries.append(Entry(f"{size}-{bag}", first.domain, title, first.seen, outcome, share, images=tuple(rows)))
    return entries


_NO_MATCH: Mapping[str, Any] = {"found": None, "right": None, "marks": ""}


def _image(sample: Sample, file: Path, number: int) -> dict[str, Any]:
    return {"id": sample.id, "number": number, "uri": data_uri(open_image(image_path(file, sample)), SIDE)}
