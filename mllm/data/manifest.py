"""The folder of a data set in the making: which settings it belongs to, what lies in it, and a hash of it all.

`settings.json` is written first, so that a run that goes on cannot mix two settings in one folder; `manifest.json` is
written last, so that whoever sees it knows that the data is whole. Neither holds a time or a machine's name: the same
settings give the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.io import strict_json
from mllm.io.files import atomic_write, sha256
from mllm.records import Sample

SCHEMA = "fieldmark.data/1"
SETTINGS, MANIFEST = "settings.json", "manifest.json"


@contextmanager
def claim(out: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[dict[str, Any] | None]:
    """Hold the folder for these settings while the block runs; yields its manifest when the data is whole already.

    Raises:
        FieldmarkError: the folder holds data of other settings (names the first that differs) or files of somebody
            else, or another run is at work in it.
    """
    settings = {"schema": SCHEMA, **json.loads(json.dumps(settings))}  # as they will be read back: tuples become lists
    if out.exists() and any(out.iterdir()) and not _is_ours(out):
        raise FieldmarkError(f"{out} is not empty and was not made by this program; choose a new folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FieldmarkError(f"{out}: another run is at work in this folder; wait for it or stop it") from None
        if overwrite:
            _clear(out)
        _check(out, settings)
        yield _read(out / MANIFEST) if (out / MANIFEST).exists() else None
    finally:
        os.close(folder)  # lets go of the lock, as the end of the process does, however it ends


def finish(out: Path, facts: Mapping[str, Any], data: Iterable[str]) -> dict[str, Any]:
    """Hash what `data` names (files, or folders whole), write the manifest and return it."""
    hashes: dict[str, str] = {}
    for name in data:
        whole = hashlib.sha256()
        path = out / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                whole.update(f"{file.relative_to(out).as_posix()} {sha256(file)}\n".encode())
        hashes[name] = whole.hexdigest()
    total = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    manifest = {**facts, "settings": _read(out / SETTINGS), "hashes": hashes, "hash": total}
    _write(out / MANIFEST, manifest)
    return manifest


def tally(samples: Iterable[Sample]) -> tuple[dict[str, Any], Counter[str]]:
    """Count samples by stratum, domain, layout, kind of question, number of things, and the refusals told in them.

    Reads one by one.
    """
    counts: dict[str, Counter[str]] = {key: Counter() for key in ("stratum", "domain", "layout", "kind", "things")}
    refused: Counter[str] = Counter()
    number, images, last, entities = 0, 0, "", set()
    for sample in samples:
        number += 1
        entities.add(sample.entity)
        images, last = images + (sample.group != last), sample.group  # questions of one image stand together
        refused.update(sample.provenance["refused"])
        told = {**sample.provenance, "domain": sample.domain, "things": str(len(sample.things))}
        for key, counter in counts.items():
            counter[told[key]] += 1
    told = {key: dict(sorted(counter.items())) for key, counter in counts.items()}
    return {"samples": number, "images": images, "entities asked": len(entities), **told}, refused


def digests(files: Iterable[str | Path | None]) -> dict[str, str]:
    """Return the digest of each file by its name; None, and what is no file here, is passed over."""
    return {str(file): sha256(file) for file in files if file and Path(file).is_file()}


def _check(out: Path, settings: Mapping[str, Any]) -> None:
    """Compare with the folder's settings, or write them into a new folder."""
    file = out / SETTINGS
    before = _read(file) if file.exists() else {}
    if before == settings:
        return
    if not any(path.suffix == ".jsonl" and ".part" not in path.name for path in out.iterdir()):
        _clear(out)  # no stage was finished: the folder is new, or a setting or an input was put right
        _write(file, settings)
        return
    for name in sorted(settings.keys() | before.keys()):
        if settings.get(name) != before.get(name):
            raise FieldmarkError(
                f"{out} holds data made with {name} = {before.get(name)!r}, now it is {settings.get(name)!r};"
                " choose another folder with --out, or throw the old data away with --overwrite"
            )


def _is_ours(out: Path) -> bool:
    """Whether the folder holds settings of ours, and so whatever lies in it was made by a data program."""
    return (out / SETTINGS).is_file() and _read(out / SETTINGS).get("schema") == SCHEMA


def _clear(out: Path) -> None:
    """Empty a folder of ours; the settings go last, so that a stop in the middle leaves it ours."""
    for path in sorted(out.iterdir(), key=lambda path: path.name == SETTINGS):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def read(out: Path) -> dict[str, Any]:
    """Return the manifest of a folder that is whole."""
    return _read(out / MANIFEST)


def _read(file: Path) -> dict[str, Any]:
    return strict_json.read(file, dict[str, Any], advice="throw the folder away and make it anew")


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(file) as out:
        json.dump(content, out, ensure_ascii=False, indent=1)
        out.write("\n")
