"""The data card that lies beside every set: what is in it, how it was made, on which terms, what was refused and why.

Written from the manifest's facts; holds no time and no machine's name, so that the same settings give the same bytes.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mllm.io import provenance
from mllm.io.files import atomic_write
from mllm.knowledge import domains
from mllm.records import Photo, Sample

CARD, ATTRIBUTION = "README.md", "attribution.csv"
_UNTOLD = ("out", "workers", "overwrite")
"""Flags that change nothing in the data."""


def spoken(context: Any, program: str) -> str:
    """Return the command that makes a set, as typed: every flag of a typer context that is not at its default."""
    words = ["python", program]
    for flag in context.command.params:
        value = context.params.get(flag.name)
        if flag.name in _UNTOLD or value in (None, (), [], flag.default):
            continue
        name = max(flag.opts, key=len)
        for one in value if isinstance(value, list | tuple) else [value]:
            words += [name] if one is True else [name, str(one)]
    return shlex.join(words)


def write(
    out: Path, facts: Mapping[str, Any], photos: Iterable[Photo], command: str, settings: Mapping[str, Any]
) -> None:
    """Write the card, and for photos that were not drawn a table of who took which on what terms."""
    photos = list(photos)
    with atomic_write(out / CARD) as file:
        file.write("\n\n".join(_parts(facts, photos, command, settings)) + "\n")
    if any(not photo.provenance.get("drawn") for photo in photos):
        with atomic_write(out / ATTRIBUTION) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("photo", "entity", "domain", "side", "licence"))
            for photo in photos:
                side = photo.provenance.get("side", "")
                table.writerow((photo.id, photo.entity, photo.domain, side, photo.licence or "not stated"))


def write_captions(out: Path, facts: Mapping[str, Any], rows: Iterable[Sample], command: str, settings: Any) -> None:
    """Write the card of a set of captions, and for images that were not drawn a table of terms."""
    rows = list(rows)
    with atomic_write(out / CARD) as file:
        file.write("\n\n".join(_caption_parts(facts, command, settings)) + "\n")
    if any(not row.provenance.get("drawn") for row in rows):
        with atomic_write(out / ATTRIBUTION) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("image", "side", "licence"))
            for row in rows:
                table.writerow((row.id, row.split, row.provenance["licence"]))


def _caption_parts(facts: Mapping[str, Any], command: str, settings: Mapping[str, Any]) -> Iterable[str]:
    """Yield the sections of a caption set's card."""
    sides = facts["samples"]
    yield "# Data card"
    made = sum(side["images"] for side in sides.values())
    yield f"{made} images with captions, strategy `{settings['strategy']}`."
    if facts["plumbing"]:
        yield f"**Plumbing.** {facts['plumbing']}"
    yield "## What is in it"
    keys = list(dict.fromkeys(key for side in sides.values() for key in side))
    yield _table(("", *sides), [(key, *(str(side.get(key, "-")) for side in sides.values())) for key in keys])
    yield (
        "Images that look alike (perceptual hash; in the pocket world: whole families) are on one side. The first "
        "of a sample's `captions` is what is learned; `provenance.given` holds what people wrote."
    )
    yield "## What was refused"
    refused = [(reason, str(count)) for reason, count in facts["refused"].items()]
    yield f"{facts['drafts']} captions were written, {sum(facts['refused'].values())} refused."
    if refused:
        yield _table(("reason", "captions"), refused)
    yield f"{facts['left out']} images were left out, since every caption of theirs was refused."
    if facts["notes"]:
        yield _table(("on the way", ""), [(note, str(count)) for note, count in facts["notes"].items()])
    yield "## Who wrote it"
    yield _table(("part", "who"), facts["teachers"].items())
    yield "## Licences and attribution"
    yield _table(("terms", "images"), [(terms, str(count)) for terms, count in facts["licences"].items()])
    yield from _made(command, settings)


def _parts(facts: Mapping[str, Any], photos: list[Photo], command: str, settings: Mapping[str, Any]) -> Iterable[str]:
    """Yield the card's sections."""
    sides = facts["samples"]
    yield "# Data card"
    made = sum(side["samples"] for side in sides.values())
    yield f"{made} grounding samples: one question about one image each, with the boxes that answer it."
    yield "## What is in it"
    yield _table(("", *sides), _counts(sides))
    yield (
        "No photo is on two sides, and no entity whose `stratum` is unseen is met in training. Each sample's "
        "`provenance` names its photos, its kind, and the line-ups that were refused before it."
    )
    yield "## What was refused"
    tried, refused = facts["line-ups tried"], facts["line-ups refused"]
    rows = [(reason, str(count), f"{100 * count / tried:.2f} %") for reason, count in refused.items()]
    total = sum(refused.values())
    yield (
        f"{tried} line-ups were tried, {total} refused ({100 * total / max(tried, 1):.2f} %); "
        "for each that was refused another was drawn."
    )
    if rows:
        yield _table(("reason", "line-ups", "of those tried"), rows)
    left = [(reason, str(count)) for reason, count in facts["photos left out"].items()]
    yield _table(("photos left out", ""), left) if left else "No photo was left out."
    yield "## Who wrote it"
    yield _table(("part", "teacher"), facts["teachers"].items())
    yield "Photos are pasted into composites whole and changed in nothing but their size; no pixel is generated."
    yield "## Licences and attribution"
    yield _table(("terms", "photos"), [(terms, str(count)) for terms, count in facts["licences"].items()])
    if any(not photo.provenance.get("drawn") for photo in photos):
        yield (
            f"Photo by photo in `{ATTRIBUTION}`. Photos of these domains often come from the sets named here, "
            "whose terms then hold:"
        )
        named = [domains.load(name) for name in sorted({photo.domain for photo in photos})]
        yield _table(("domain", "set", "its terms"), [(one.name, one.source, one.licence) for one in named])
    yield from _made(command, settings)


def _made(command: str, settings: Mapping[str, Any]) -> Iterable[str]:
    """Yield the section that says how a set can be made again."""
    yield "## How it was made"
    yield f"```bash\n{command}\n```"
    digests = [f"- `{file}`, SHA-256 {code}" for file, code in settings.get("digests", {}).items()]
    if digests:
        yield "From these files:\n\n" + "\n".join(digests)
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    yield f"Seed {settings['seed']}; {versions}. `manifest.json` holds hashes, `settings.json` every setting."


def _counts(sides: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row for each number of the manifest's counts, a column for each side."""
    rows = [(key, *(str(side[key]) for side in sides.values())) for key in ("samples", "images", "entities asked")]
    for key in ("kind", "stratum", "domain", "layout", "things"):
        for value in sorted({value for side in sides.values() for value in side[key]}):
            rows.append((f"{key}: {value}", *(str(side[key].get(value, 0)) for side in sides.values())))
    return rows


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
