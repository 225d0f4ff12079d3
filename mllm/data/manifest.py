"""The folder of a data set while it is made: its settings, its contents, and a hash of them.

`settings.json` comes first, so that a resumed run cannot mix two settings, and `manifest.json` last, as a sign that the
data is complete. Neither holds a time or a machine's name: the same settings give the same bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.io import strict_json
from mllm.io.files import atomic_write, is_leftover, locked, remove
from mllm.io.provenance import file_hash
from mllm.records import Sample

SCHEMA = "fieldmark.data/1"
SETTINGS, MANIFEST = "settings.json", "manifest.json"


@contextmanager
def claim(out: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[dict[str, Any] | None]:
    """Lock the folder for these settings while the block runs; yield its manifest if the data is already complete.

    Raises `FieldmarkError`: the folder holds data of other settings (names the first that differs) or foreign files, or
    another run is using it.
    """
    settings = {"schema": SCHEMA, **json.loads(json.dumps(settings))}  # as json gives them back: tuples become lists
    ours = (out / SETTINGS).is_file() and _read(out / SETTINGS).get("schema") == SCHEMA
    if out.exists() and not ours and not all(is_leftover(path) for path in out.iterdir()):
        raise FieldmarkError(f"{out} is not empty and was not made by this program; choose a new folder with --out")
    with locked(out):
        if overwrite:
            _clear(out)
        _check(out, settings)
        yield _read(out / MANIFEST) if (out / MANIFEST).exists() else None


def finish(out: Path, facts: Mapping[str, Any], data: Iterable[str]) -> dict[str, Any]:
    """Hash the files and folders that `data` names, write the manifest and return it."""
    hashes: dict[str, str] = {}
    for name in data:
        whole = hashlib.sha256()
        path = out / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                whole.update(f"{file.relative_to(out).as_posix()} {file_hash(file)}\n".encode())
        hashes[name] = whole.hexdigest()
    total = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    manifest = {**facts, "settings": _read(out / SETTINGS), "hashes": hashes, "hash": total}
    _write(out / MANIFEST, manifest)
    return manifest


def tally(samples: Iterable[Sample]) -> tuple[dict[str, Any], Counter[str]]:
    """Count samples by stratum, domain, layout, kind of question and number of things, and their refusals by reason."""
    counts: dict[str, Counter[str]] = {key: Counter() for key in ("stratum", "domain", "layout", "kind", "things")}
    refused: Counter[str] = Counter()
    number, images, last, entities = 0, 0, "", set()
    for sample in samples:
        number += 1
        entities.add(sample.entity)
        images, last = images + (sample.group != last), sample.group  # questions of one image are consecutive
        refused.update(sample.refused)
        for key, counter in counts.items():
            counter[str(len(sample.things) if key == "things" else getattr(sample, key))] += 1
    by_key = {key: dict(sorted(counter.items())) for key, counter in counts.items()}
    return {"samples": number, "images": images, "entities asked": len(entities), **by_key}, refused


def digests(files: Iterable[str | Path | None]) -> dict[str, str]:
    """Return the hash of each file by its name; None and names of missing files are skipped."""
    return {str(file): file_hash(file) for file in files if file and Path(file).is_file()}


def _check(out: Path, settings: Mapping[str, Any]) -> None:
    """Compare with the folder's settings, or write them into a new folder."""
    file = out / SETTINGS
    before = _read(file) if file.exists() else {}
    if before == settings:
        return
    if not any(path.suffix == ".jsonl" and ".part" not in path.name for path in out.iterdir()):
        _clear(out)  # no stage is finished: the folder is new, or a setting or an input was corrected
        _write(file, settings)
        return
    for name in sorted(settings.keys() | before.keys()):
        if settings.get(name) != before.get(name):
            raise FieldmarkError(
                f"{out} holds data made with {name} = {before.get(name)!r}, now it is {settings.get(name)!r};"
                " choose another folder with --out, or delete the old data with --overwrite"
            )


def _clear(out: Path) -> None:
    """Empty our folder. The settings are deleted last, so that an interruption leaves it recognisable."""
    for path in sorted(out.iterdir(), key=lambda path: path.name == SETTINGS):
        remove(path)


def read(out: Path) -> dict[str, Any]:
    """Return the manifest of a complete folder."""
    return _read(out / MANIFEST)


def _read(file: Path) -> dict[str, Any]:
    return strict_json.read(file, dict[str, Any], advice="delete the folder and run the program again")


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(file) as out:
        json.dump(content, out, ensure_ascii=False, indent=1)
        out.write("\n")
