"""The data card beside every data set: its contents, how it was made, its licences, and what was refused and why.

It is written from the manifest's facts and holds neither a time nor a machine's name: equal settings give equal bytes.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mllm.io import provenance
from mllm.io.files import atomic_write
from mllm.io.tables import markdown
from mllm.knowledge import domains
from mllm.records import Photo, Sample

CARD, ATTRIBUTION = "README.md", "attribution.csv"


def write(
    out: Path, facts: Mapping[str, Any], photos: Iterable[Photo], command: str, settings: Mapping[str, Any]
) -> None:
    """Write the card of a grounding set, and for photos that were not drawn a table of their authors and licences."""
    photos = list(photos)
    _write_card(out, _grounding_sections(facts, photos, command, settings))
    if any(not photo.drawn for photo in photos):
        rows = ((p.id, *_labels(p), p.split or "", p.licence or "not stated") for p in photos)
        _write_attribution(out, ("photo", "entity", "domain", "side", "licence"), rows)


def write_captions(out: Path, facts: Mapping[str, Any], rows: Iterable[Sample], command: str, settings: Any) -> None:
    """Write the card of a set of captions, and for images that were not drawn a table of licences."""
    rows = list(rows)
    _write_card(out, _caption_sections(facts, command, settings))
    if any(not row.drawn for row in rows):
        lines = ((row.id, row.split, row.licence) for row in rows)
        _write_attribution(out, ("image", "side", "licence"), lines)


def _write_card(out: Path, sections: Iterable[str]) -> None:
    with atomic_write(out / CARD) as file:
        file.write("\n\n".join(sections) + "\n")


def _write_attribution(out: Path, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    with atomic_write(out / ATTRIBUTION) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def _labels(photo: Photo) -> tuple[str, str]:
    """Return the names of a photo's entities and of their domains."""
    domains_, names = zip(*photo.kinds, strict=True)
    return "; ".join(names), "; ".join(dict.fromkeys(domains_))


def _caption_sections(facts: Mapping[str, Any], command: str, settings: Mapping[str, Any]) -> Iterable[str]:
    sides = facts["samples"]
    yield "# Data card"
    made = sum(side["images"] for side in sides.values())
    yield f"{made} images with captions, strategy `{settings['strategy']}`."
    if facts["plumbing"]:
        yield f"**Plumbing.** {facts['plumbing']}"
    yield "## Contents"
    keys = dict.fromkeys(key for side in sides.values() for key in side)
    yield markdown([("", *sides), *((key, *(side.get(key, "-") for side in sides.values())) for key in keys)])
    yield (
        "Near-duplicate images (perceptual hash; in the pocket world: whole families) are on one side. The first "
        "of a sample's `captions` is the training target; `human_captions` holds what people wrote."
    )
    yield "## Refused captions"
    yield f"{facts['drafts']} captions were written, {sum(facts['refused'].values())} refused."
    if facts["refused"]:
        yield markdown([("reason", "captions"), *facts["refused"].items()])
    yield f"{facts['left out']} images were left out because every caption of theirs was refused."
    if facts["notes"]:
        yield markdown([("note", "count"), *facts["notes"].items()])
    yield "## Authors"
    yield markdown([("part", "author"), *facts["teachers"].items()])
    yield "## Licences and attribution"
    yield markdown([("licence", "images"), *facts["licences"].items()])
    yield from _how_it_was_made(command, settings)


def _grounding_sections(
    facts: Mapping[str, Any], photos: list[Photo], command: str, settings: Mapping[str, Any]
) -> Iterable[str]:
    sides = facts["samples"]
    yield "# Data card"
    made = sum(side["samples"] for side in sides.values())
    yield f"{made} grounding samples: one question about one image each, with the boxes that answer it."
    yield "## Contents"
    yield markdown([("", *sides), *_counts(sides)])
    yield (
        "No photo is on two sides, and no entity whose `stratum` is unseen occurs in training. Each sample's "
        "`provenance` names its photos, `kind` what it asks, `refused` why line-ups before it were rejected."
    )
    yield "## Refused line-ups"
    tried, refused = facts["line-ups tried"], facts["line-ups refused"]
    total = sum(refused.values())
    yield (
        f"{tried} line-ups were tried, {total} refused ({100 * total / max(tried, 1):.2f} %); "
        "each refused one was replaced by another draw."
    )
    if refused:
        rows = [(reason, count, f"{100 * count / tried:.2f} %") for reason, count in refused.items()]
        yield markdown([("reason", "line-ups", "share of those tried"), *rows])
    left_out = facts["photos left out"]
    yield markdown([("reason", "photos left out"), *left_out.items()]) if left_out else "No photo was left out."
    yield "## Authors"
    yield markdown([("part", "teacher"), *facts["teachers"].items()])
    yield "Photos are pasted into composites whole; only their size changes, and no pixel is generated."
    yield "## Licences and attribution"
    yield markdown([("licence", "photos"), *facts["licences"].items()])
    if any(not photo.drawn for photo in photos):
        kinds = [domains.load(name) for name in sorted({domain for photo in photos for domain, _ in photo.kinds})]
        rows = [(one.name, one.source, one.licence) for one in kinds if one.source]
        sets = " Photos of these domains often come from the sets named here, whose terms then apply:" if rows else ""
        yield f"`{ATTRIBUTION}` lists the photos one by one.{sets}"
        if rows:
            yield markdown([("domain", "set", "its terms"), *rows])
    yield from _how_it_was_made(command, settings)


def _how_it_was_made(command: str, settings: Mapping[str, Any]) -> Iterable[str]:
    yield "## How it was made"
    yield f"```bash\n{command}\n```"
    if digests := settings.get("digests"):
        yield "From these files:\n\n" + "\n".join(f"- `{file}`, SHA-256 {code}" for file, code in digests.items())
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    yield f"Seed {settings['seed']}; {versions}. `manifest.json` holds hashes, `settings.json` every setting."


def _counts(sides: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[Any, ...]]:
    """Yield a row for each number of the manifest's counts, with a column for each side."""
    for key in ("samples", "images", "entities asked"):
        yield key, *(side[key] for side in sides.values())
    for key in ("kind", "stratum", "domain", "layout", "things"):
        for value in sorted({value for side in sides.values() for value in side[key]}):
            yield f"{key}: {value}", *(side[key].get(value, 0) for side in sides.values())
